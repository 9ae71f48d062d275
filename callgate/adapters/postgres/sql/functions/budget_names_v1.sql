-- callgate_budget_names_v1: the newest period of each budget after a name, by organisation, scope and window.
--
-- It goes from name to name by index, so periods of the past cost nothing, however many there are.
-- p_org_id   only of this organisation, if it is not null.
-- p_scope, p_window  with p_after_org: the name after which it begins. Null: at the first.
CREATE FUNCTION callgate_budget_names_v1(
    p_org_id text, p_after_org text, p_after_scope text, p_after_window text, p_limit int
) RETURNS SETOF bigint
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
    WITH RECURSIVE name (id, org_id, scope, "window", n) AS (
        (SELECT b.id, b.org_id, b.scope, b."window", 1 FROM budget b
          WHERE (b.org_id, b.scope, b."window") >
                (coalesce(p_after_org, p_org_id, ''), coalesce(p_after_scope, ''), coalesce(p_after_window, ''))
          ORDER BY b.org_id, b.scope, b."window" LIMIT 1)
        UNION ALL
        SELECT x.* FROM name n CROSS JOIN LATERAL (
            SELECT b.id, b.org_id, b.scope, b."window", n.n + 1 FROM budget b
             WHERE (b.org_id, b.scope, b."window") > (n.org_id, n.scope, n."window")
             ORDER BY b.org_id, b.scope, b."window" LIMIT 1) x
         WHERE n.n < p_limit AND (p_org_id IS NULL OR n.org_id = p_org_id)
    )
    SELECT (SELECT b.id FROM budget b
             WHERE b.org_id = n.org_id AND b.scope = n.scope AND b."window" = n."window"
             ORDER BY b.starts_at DESC LIMIT 1)
      FROM name n WHERE p_org_id IS NULL OR n.org_id = p_org_id
     ORDER BY n.n
$$;
