-- callgate_figures_of_budgets_v1: budgets whose period runs: limit, held and spent of the largest organisations, and how
-- many budgets are used by how much. A part of read_figures_v1.
--
-- p_orgs_max    so many organisations are named, those that used most; `other` is the sum of the rest.
-- p_budgets_max  at most so many budgets are read.
-- p_groups_max  at most so many lines are returned of each of limit, held and spent.
CREATE FUNCTION callgate_figures_of_budgets_v1(p_orgs_max int, p_budgets_max int, p_groups_max int)
RETURNS TABLE (name text, labels text[], value float8)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH running AS MATERIALIZED (
        SELECT b.org_id, b.scope, b."window", b.limit_nano_usd, b.reserved_nano_usd, b.spent_nano_usd
          FROM budget b WHERE b.ends_at > now() LIMIT p_budgets_max
    ), named AS MATERIALIZED (
        SELECT r.org_id, sum(r.reserved_nano_usd + r.spent_nano_usd) AS used FROM running r
         GROUP BY r.org_id ORDER BY used DESC, r.org_id COLLATE "C" LIMIT p_orgs_max
    ), lines AS MATERIALIZED (
        SELECT coalesce(n.org_id, 'other') AS org_id, r.scope, r."window", sum(r.limit_nano_usd) AS limit_nano_usd,
               sum(r.reserved_nano_usd) AS reserved_nano_usd, sum(r.spent_nano_usd) AS spent_nano_usd
          FROM running r LEFT JOIN named n USING (org_id)
         GROUP BY 1, 2, 3 ORDER BY max(n.used) DESC NULLS LAST, 1, 2, 3 LIMIT p_groups_max
    ), used AS (
        SELECT CASE WHEN x.used >= x.limit_nano_usd THEN '100' WHEN x.used >= 0.8 * x.limit_nano_usd THEN '80'
                    WHEN x.used >= 0.5 * x.limit_nano_usd THEN '50' ELSE '0' END AS percent, count(*) AS budgets
          FROM (SELECT r.reserved_nano_usd + r.spent_nano_usd AS used, r.limit_nano_usd FROM running r) x
         GROUP BY 1
    )
    SELECT v.name, ARRAY[l.org_id, l.scope, l."window"], (v.nano_usd / 1e9)::float8
      FROM lines l
     CROSS JOIN LATERAL (VALUES ('callgate_budget_limit_usd', l.limit_nano_usd),
                                ('callgate_budget_held_usd', l.reserved_nano_usd),
                                ('callgate_budget_spent_usd', l.spent_nano_usd)) AS v(name, nano_usd)
     UNION ALL
    SELECT 'callgate_budgets', ARRAY[k.percent], coalesce(u.budgets, 0)::float8
      FROM (VALUES ('0'), ('50'), ('80'), ('100')) AS k(percent) LEFT JOIN used u USING (percent)
$$;
