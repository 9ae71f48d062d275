-- callgate_expire_leases_v1: release leases that have run out, if the process that asks may judge; SKIP LOCKED.
--
-- It may if its own lease was renewed within half of it, and has been steady for as long as the judged lease lasts: then
-- the ledger has been there, and who is alive has had the time to renew. This is decided here and not by the process,
-- because a statement that is sent to a stopped Postgres runs when that goes on, long after whoever sent it gave up.
-- Returns   the worker ids whose leases are gone.
CREATE FUNCTION callgate_expire_leases_v1(p_judge text, p_limit int) RETURNS SETOF text
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    gone text[];
BEGIN
    SELECT array_agg(x.worker_id) INTO gone FROM (
        SELECT w.worker_id FROM worker_lease w
         WHERE w.expires_at <= now()
           AND EXISTS (SELECT 1 FROM worker_lease j
                        WHERE j.worker_id = p_judge
                          AND now() - j.renewed_at <= (j.expires_at - j.renewed_at) / 2
                          AND now() - j.steady_since >= w.expires_at - w.renewed_at)
         ORDER BY w.expires_at LIMIT p_limit FOR UPDATE OF w SKIP LOCKED) x;
    IF gone IS NOT NULL THEN
        PERFORM callgate_release_leases_v1(gone);
    END IF;
    RETURN QUERY SELECT unnest(gone);
END $$;
