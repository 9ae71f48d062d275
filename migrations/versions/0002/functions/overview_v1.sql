-- callgate_overview_v1: what is read at one glance beside the figures of the ledger: calls that died lately, what is
-- held, and the daily limits of organisations.
--
-- p_dead_s    a call counts if its last attempt began so many seconds ago at most.
-- p_rows_max  at most so many rows of each kind are read.
-- Locks       none.
CREATE FUNCTION callgate_overview_v1(p_dead_s float8, p_rows_max int)
RETURNS TABLE (
    at timestamptz, dead int, held_nano_usd bigint, day_budgets int, day_limit_nano_usd numeric,
    day_held_nano_usd numeric, day_spent_nano_usd numeric)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
    WITH dead AS (
        SELECT count(*)::int AS calls
          FROM (SELECT FROM llm_call l
                 WHERE l.state = 'dead' AND l.generation > 0
                   AND l.attempt_id >= callgate_uuid_floor_v1(now() - make_interval(secs => p_dead_s))
                 -- This order is that of the index: without it all dead letters may be read.
                 ORDER BY l.attempt_id LIMIT p_rows_max) d
    ), held AS (
        SELECT coalesce(sum(u.hold_nano_usd), 0)::bigint AS nano_usd
          FROM (SELECT a.hold_nano_usd FROM ai_call_log a WHERE a.posted_nano_usd IS NULL LIMIT p_rows_max) u
    ), day AS (
        SELECT count(*)::int AS budgets, coalesce(sum(b.limit_nano_usd), 0) AS limit_nano_usd,
               coalesce(sum(b.reserved_nano_usd), 0) AS held, coalesce(sum(b.spent_nano_usd), 0) AS spent
          FROM (SELECT b.* FROM budget b WHERE b.ends_at > now() LIMIT 5 * p_rows_max) b
         WHERE b.scope = 'org' AND b."window" = 'day'
    )
    SELECT now(), dead.calls, held.nano_usd, day.budgets, day.limit_nano_usd, day.held, day.spent
      FROM dead, held, day
$$;
