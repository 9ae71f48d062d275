-- callgate_spent_drift_v1: by how much budgets differ from what their attempts have posted, in periods that run or ended
-- less than two days ago. A part of figures_of_attempts_v1.
--
-- What attempts have posted comes from budget_sum, and from the deltas that are not in it yet. It is of one moment: a
-- settlement writes budget and delta together, and a fold moves a delta in one transaction.
-- p_rows_max  at most so many budgets are compared, and at most so many deltas are read.
-- Returns     nano-USD; NULL if there are more deltas, or days of before the sums that are not summed up yet.
CREATE FUNCTION callgate_spent_drift_v1(p_rows_max int) RETURNS numeric
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH recent AS MATERIALIZED (
        SELECT b.id, b.spent_nano_usd FROM budget b WHERE b.ends_at > now() - interval '2 days' LIMIT p_rows_max
    ), deltas AS MATERIALIZED (
        SELECT d.budget_ids, d.posted_nano_usd FROM attempt_delta d LIMIT p_rows_max + 1
    ), unfolded AS MATERIALIZED (
        SELECT u.budget_id, sum(d.posted_nano_usd) AS posted
          FROM deltas d CROSS JOIN LATERAL unnest(d.budget_ids) AS u(budget_id) GROUP BY u.budget_id
    )
    SELECT CASE WHEN (SELECT count(*) FROM deltas) <= p_rows_max AND NOT EXISTS (SELECT 1 FROM sum_gap) THEN
           (SELECT coalesce(sum(abs(r.spent_nano_usd - coalesce(f.posted, 0) - coalesce(u.posted, 0))), 0)
              FROM recent r
              LEFT JOIN LATERAL (SELECT sum(s.posted_nano_usd) AS posted FROM budget_sum s WHERE s.budget_id = r.id) f
                ON true
              LEFT JOIN unfolded u ON u.budget_id = r.id) END
$$;
