-- callgate_unknown_sums_v1: sum up the newest unknown bills that were not settled by hand, by provider and model, most
-- money first.
--
-- p_attempts_max  at most so many attempts are read.
CREATE FUNCTION callgate_unknown_sums_v1(
    p_org_id text, p_provider text, p_model text, p_since timestamptz, p_before timestamptz, p_attempts_max int
) RETURNS TABLE (provider text, model text, attempts int, posted_nano_usd bigint, oldest_at timestamptz)
LANGUAGE sql STABLE SET plan_cache_mode = force_custom_plan AS $$
    SELECT u.provider, u.model, count(*)::int, sum(u.posted_nano_usd)::bigint, min(u.started_at)
      FROM callgate_unknown_page_v1(
          p_org_id, p_provider, p_model, p_since, p_before, NULL, NULL, p_attempts_max) u
     GROUP BY u.provider, u.model ORDER BY 4 DESC, 1, 2
$$;
