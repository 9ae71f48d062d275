-- callgate_renew_lease_v2: grant or renew the lease of a worker process, for p_lease_s seconds from now.
--
-- A renewal that comes later than half a lease after the last one resets `stable_since`: in between this process or the
-- ledger was unavailable, so the process may not reap others.
-- p_slots   how many calls the process runs at a time.
-- Locks     the process's row of worker_lease.
-- Returns   began_at. If it has changed, the old lease had expired and was released together with its attempts.
CREATE FUNCTION callgate_renew_lease_v2(p_worker_id text, p_lease_s float8, p_slots int) RETURNS timestamptz
LANGUAGE sql AS $$
    INSERT INTO worker_lease AS w (worker_id, began_at, stable_since, renewed_at, expires_at, slots)
    VALUES (p_worker_id, now(), now(), now(), now() + make_interval(secs => p_lease_s), p_slots)
    ON CONFLICT (worker_id) DO UPDATE
       SET stable_since = CASE WHEN now() - w.renewed_at > make_interval(secs => p_lease_s / 2) THEN now()
                               ELSE w.stable_since END,
           renewed_at = now(), expires_at = excluded.expires_at, slots = excluded.slots
    RETURNING w.began_at
$$;
