-- callgate_expired_leases_v1: list the worker processes that stopped renewing their lease: those that no other process has
-- reaped yet, and those that were reaped within the last hour and have not come back.
--
-- A process that stops in order takes its lease with it. So these froze, were killed, or cannot reach the ledger.
-- Returns   at most 100, the one that went silent last first. since: its last renewal. silent_s: seconds since then.
--           is_taken_over: another process has its calls.
CREATE FUNCTION callgate_expired_leases_v1() RETURNS TABLE (
    worker_id text, since timestamptz, silent_s float8, is_taken_over boolean)
LANGUAGE sql STABLE AS $$
    WITH reaped AS (
        SELECT a.subject AS worker_id, max((a.detail ->> 'since')::timestamptz) AS since
          FROM alert a WHERE a.at > now() - interval '1 hour' AND a.kind = 'lease_lost' GROUP BY a.subject
    ), gone AS (
        SELECT w.worker_id, w.renewed_at AS since, false AS is_taken_over
          FROM worker_lease w WHERE w.expires_at <= now() AND w.began_at < w.expires_at
         UNION ALL
        SELECT r.worker_id, r.since, true
          FROM reaped r
         WHERE r.since IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM worker_lease w
                            WHERE w.worker_id = r.worker_id AND w.began_at < w.expires_at)
    )
    SELECT g.worker_id, g.since, extract(epoch FROM now() - g.since)::float8, g.is_taken_over
      FROM gone g ORDER BY g.since DESC, g.worker_id LIMIT 100
$$;
