-- callgate_may_reap_v1: whether a process may expire the leases of other processes, and their attempts.
--
-- Two conditions hold for its own lease: it was renewed within half of its length, and it is stable for p_stable_for.
-- Then the ledger was available all that time, and a living process could renew its lease or record its answer. The
-- ledger decides this, not the process. A statement that was sent to a stopped Postgres runs when Postgres continues,
-- long after its sender gave up.
CREATE FUNCTION callgate_may_reap_v1(p_worker_id text, p_stable_for interval) RETURNS boolean
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT 1 FROM worker_lease j
                    WHERE j.worker_id = p_worker_id
                      AND now() - j.renewed_at <= (j.expires_at - j.renewed_at) / 2
                      AND now() - j.stable_since >= p_stable_for)
$$;
