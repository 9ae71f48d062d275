-- callgate_expire_leases_v1: release leases that have expired, if the process p_reaper may reap.
--
-- The reaper's own lease must have been stable for as long as the expired lease lasted. In that time a living process
-- could have renewed its lease.
-- Locks     the leases: SKIP LOCKED.
-- Returns   the workers whose lease was released, each once. A lease that release_leases_v1 keeps because of locked
--           calls ends at the moment when it begins, and is not returned again.
CREATE FUNCTION callgate_expire_leases_v1(p_reaper text, p_limit int) RETURNS SETOF text
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    gone text[];
    newly_gone text[];
BEGIN
    SELECT array_agg(x.worker_id), array_agg(x.worker_id) FILTER (WHERE x.began_at < x.expires_at) INTO gone, newly_gone
      FROM (SELECT w.worker_id, w.began_at, w.expires_at FROM worker_lease w
             WHERE w.expires_at <= now() AND callgate_may_reap_v1(p_reaper, w.expires_at - w.renewed_at)
             ORDER BY w.expires_at LIMIT p_limit FOR UPDATE OF w SKIP LOCKED) x;
    IF gone IS NOT NULL THEN
        PERFORM callgate_release_leases_v1(gone);
    END IF;
    RETURN QUERY SELECT unnest(newly_gone);
END $$;
