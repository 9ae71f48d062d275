-- callgate_may_reap_v1: whether a process may call others, or their attempts, lost.
--
-- It may if its own lease was renewed within half of it, and has been steady for `p_steady_for`: then the ledger has been there
-- all that time, and whoever is alive could renew or record. This is decided here and not by the process, because a
-- statement that is sent to a stopped Postgres runs when that goes on, long after whoever sent it gave up.
CREATE FUNCTION callgate_may_reap_v1(p_worker_id text, p_steady_for interval) RETURNS boolean
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT EXISTS (SELECT 1 FROM worker_lease j
                    WHERE j.worker_id = p_worker_id
                      AND now() - j.renewed_at <= (j.expires_at - j.renewed_at) / 2
                      AND now() - j.stable_since >= p_steady_for)
$$;
