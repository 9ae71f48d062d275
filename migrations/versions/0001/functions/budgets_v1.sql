-- callgate_budgets_v1: the newest period of each budget that the login may read; of one organisation, if p_org_id is
-- given.
CREATE FUNCTION callgate_budgets_v1(p_org_id text) RETURNS SETOF budget
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
BEGIN
    RETURN QUERY
    SELECT DISTINCT ON (b.org_id, b.scope, b."window") b.* FROM budget b
     WHERE orgs IS NULL OR b.org_id = ANY (orgs)
     ORDER BY b.org_id, b.scope, b."window", b.starts_at DESC;
END $$;
