-- callgate_renew_lease_v1: grant or prolong the lease of a worker process, p_lease_s seconds from now.
--
-- A renewal that comes later than half a lease after the one before starts `stable_since` anew: for that long this
-- process, or the ledger, was away, and it may judge nobody.
-- Returns   began_at. Another one than before: the lease had run out and was released, its attempts were given away.
CREATE FUNCTION callgate_renew_lease_v1(p_worker_id text, p_lease_s float8) RETURNS timestamptz
LANGUAGE sql AS $$
    INSERT INTO worker_lease AS w (worker_id, began_at, stable_since, renewed_at, expires_at)
    VALUES (p_worker_id, now(), now(), now(), now() + make_interval(secs => p_lease_s))
    ON CONFLICT (worker_id) DO UPDATE
       SET stable_since = CASE WHEN now() - w.renewed_at > make_interval(secs => p_lease_s / 2) THEN now()
                               ELSE w.stable_since END,
           renewed_at = now(), expires_at = excluded.expires_at
    RETURNING w.began_at
$$;
