-- callgate_fullest_budgets_v1: budgets whose period runs, with the largest used part of their limit first. What is held
-- counts as used. A limit of 0 is used up.
--
-- p_read_max  at most so many running periods are looked at.
CREATE FUNCTION callgate_fullest_budgets_v1(p_limit int, p_read_max int) RETURNS SETOF bigint
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT r.id
      FROM (SELECT b.id, b.limit_nano_usd, b.spent_nano_usd + b.reserved_nano_usd AS used
              FROM budget b WHERE b.ends_at > now() LIMIT p_read_max) r
     ORDER BY CASE WHEN r.limit_nano_usd = 0 THEN 1 ELSE r.used::float8 / r.limit_nano_usd END DESC, r.used DESC, r.id
     LIMIT p_limit
$$;
