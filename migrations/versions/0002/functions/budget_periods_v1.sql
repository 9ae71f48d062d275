-- callgate_budget_periods_v1: the periods of a budget, newest first.
CREATE FUNCTION callgate_budget_periods_v1(p_org_id text, p_scope text, p_window text, p_limit int)
RETURNS SETOF budget
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT b.* FROM budget b
     WHERE b.org_id = p_org_id AND b.scope = p_scope AND b."window" = p_window
     ORDER BY b.starts_at DESC LIMIT p_limit
$$;
