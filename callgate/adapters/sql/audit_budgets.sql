-- audit_budgets: every budget period as counted, beside what its rows say, those of dropped partitions included.
SELECT b.id AS budget_id, b.org_id, b.scope, b."window", b.starts_at, b.reserved_nano_usd, b.spent_nano_usd,
       coalesce(r.reserved, 0)::bigint AS reserved_by_rows_nano_usd,
       coalesce(r.spent, 0)::bigint AS spent_by_rows_nano_usd
  FROM budget b
  LEFT JOIN (
       SELECT u.budget_id, sum(a.held_nano_usd) AS reserved, sum(a.posted_nano_usd) AS spent
         FROM ai_call_log_sums a CROSS JOIN LATERAL unnest(a.budget_ids) AS u(budget_id)
        GROUP BY u.budget_id
  ) r ON r.budget_id = b.id
 ORDER BY b.org_id, b.scope, b."window", b.starts_at
