-- callgate_expire_leases_v2: release leases that have expired, if the process p_reaper may reap, and raise an alert for
-- each of them in the same transaction.
--
-- The reaper's own lease must have been stable for as long as the expired lease lasted. In that time a living process
-- could have renewed its lease.
-- Locks     the leases: SKIP LOCKED. It adds rows to alert.
-- Returns   the workers whose lease was released, each once. A lease that release_leases_v1 keeps because of locked
--           calls ends at the moment when it begins, and is not returned again.
CREATE FUNCTION callgate_expire_leases_v2(p_reaper text, p_limit int) RETURNS SETOF text
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    gone text[];
    newly_gone text[];
    last_renewals timestamptz[];        -- of the newly gone
BEGIN
    SELECT array_agg(x.worker_id), array_agg(x.worker_id) FILTER (WHERE x.began_at < x.expires_at),
           array_agg(x.renewed_at) FILTER (WHERE x.began_at < x.expires_at)
      INTO gone, newly_gone, last_renewals
      FROM (SELECT w.worker_id, w.began_at, w.renewed_at, w.expires_at FROM worker_lease w
             WHERE w.expires_at <= now() AND callgate_may_reap_v1(p_reaper, w.expires_at - w.renewed_at)
             ORDER BY w.expires_at LIMIT p_limit FOR UPDATE OF w SKIP LOCKED) x;
    IF gone IS NOT NULL THEN
        PERFORM callgate_release_leases_v1(gone);
        -- A process may lose its lease, wake up, and lose it again: so the time is part of the key.
        PERFORM callgate_raise_alert_v1(
                    'lease_lost', concat_ws(':', 'lease_lost', lost.id, extract(epoch FROM now())), '', lost.id,
                    jsonb_build_object('worker_id', lost.id, 'since', lost.renewed_at))
           FROM unnest(newly_gone, last_renewals) AS lost(id, renewed_at);
    END IF;
    RETURN QUERY SELECT unnest(newly_gone);
END $$;
