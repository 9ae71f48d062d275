-- callgate_note_shares_v1: note how much organisations took from the limits of keys, so that the others come first.
--
-- What was taken counts less as time passes.
-- p_breaker_ids  the shared breakers of the keys. p_org_ids, p_shares: who took which part of a limit. p_fades_s: the
--                longest window of those limits.
-- Locks          rows of flow_share. The caller holds the limits of the keys.
CREATE FUNCTION callgate_note_shares_v1(
    p_breaker_ids bigint[], p_org_ids text[], p_shares float8[], p_fades_s float8[]
) RETURNS void
LANGUAGE sql SET enable_seqscan = off AS $$
    INSERT INTO flow_share AS f (breaker_id, org_id, share, noted_at, fades_s)
    SELECT u.breaker_id, u.org_id, sum(u.share), now(), max(u.fades_s)
      FROM unnest(p_breaker_ids, p_org_ids, p_shares, p_fades_s) AS u(breaker_id, org_id, share, fades_s)
     GROUP BY u.breaker_id, u.org_id
     ORDER BY u.breaker_id, u.org_id
    ON CONFLICT (breaker_id, org_id) DO UPDATE
       SET share = callgate_faded_share_v1(f.share, f.noted_at, f.fades_s) + excluded.share, noted_at = now(),
           fades_s = excluded.fades_s
$$;
