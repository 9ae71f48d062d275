-- callgate_audit_budgets_v1: some budget periods beside what their attempts hold and have posted, at one moment.
--
-- What attempts hold comes from the rows that are not posted, which are few. What they have posted comes from budget_sum
-- and the deltas that are not in it yet.
-- p_from, p_until  ids of budgets.
CREATE FUNCTION callgate_audit_budgets_v1(p_from bigint, p_until bigint)
RETURNS TABLE (
    budget_id bigint, org_id text, scope text, "window" text, starts_at timestamptz, reserved_nano_usd bigint,
    reserved_by_rows_nano_usd bigint, spent_nano_usd bigint, spent_by_rows_nano_usd bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT b.id, b.org_id, b.scope, b."window", b.starts_at, b.reserved_nano_usd, coalesce(h.held, 0)::bigint,
           b.spent_nano_usd, coalesce(p.posted, 0)::bigint
      FROM budget b
      LEFT JOIN (SELECT u.budget_id, sum(o.hold_nano_usd) AS held
                   FROM ai_call_log o CROSS JOIN LATERAL unnest(o.budget_ids) AS u(budget_id)
                  WHERE o.posted_nano_usd IS NULL AND u.budget_id >= p_from AND u.budget_id < p_until
                  GROUP BY 1) h
        ON h.budget_id = b.id
      LEFT JOIN (SELECT x.budget_id, sum(x.posted) AS posted FROM (
                    SELECT s.budget_id, s.posted_nano_usd AS posted FROM budget_sum s
                     WHERE s.budget_id >= p_from AND s.budget_id < p_until
                    UNION ALL
                    SELECT u.budget_id, e.posted_nano_usd
                      FROM attempt_delta e CROSS JOIN LATERAL unnest(e.budget_ids) AS u(budget_id)
                     WHERE u.budget_id >= p_from AND u.budget_id < p_until) x
                  GROUP BY 1) p
        ON p.budget_id = b.id
     WHERE b.id >= p_from AND b.id < p_until;
END $$;
