-- callgate_forget_breakers_v1: delete breakers that were not used for a week and for which no call waits:
-- `Breaker.is_forgettable`.
--
-- Callers choose the names of models. Without this function the table would grow with each name that has a price. The
-- same holds for learned and observed limits, and for shares of organisations.
-- Locks     those rows: SKIP LOCKED, so that the order of locks is kept.
-- Returns   how many breakers were deleted; at most p_limit.
CREATE FUNCTION callgate_forget_breakers_v1(p_limit int) RETURNS int
LANGUAGE sql SET enable_bitmapscan = off AS $$
    WITH old AS (
        SELECT b.id FROM breaker b
         WHERE (NOT b.is_open OR b.probe_at IS NOT NULL) AND b.trial_ids = '{}'
           AND greatest(b.changed_at, b.proven_at, b.probe_at) <= now() - interval '7 days'
           AND NOT EXISTS (
               SELECT 1 FROM breaker e JOIN llm_call l ON l.breaker_id = e.id
                WHERE e.provider = b.provider AND e.model = b.model AND e.credential = b.credential)
         LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        DELETE FROM breaker b USING old WHERE b.id = old.id RETURNING 1
    ), unused AS (
        SELECT l.id FROM flow_limit l
         WHERE l.source <> 'declared' AND l.changed_at <= now() - interval '7 days'
         LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), forgotten_limits AS (
        DELETE FROM flow_limit l USING unused u WHERE l.id = u.id
    ), forgotten_shares AS (
        DELETE FROM flow_share f
         WHERE (f.breaker_id, f.org_id) IN (
               SELECT s.breaker_id, s.org_id FROM flow_share s WHERE s.noted_at <= now() - interval '7 days'
                LIMIT p_limit FOR UPDATE SKIP LOCKED)
    )
    SELECT count(*)::int FROM forgotten
$$;
