-- callgate_figures_of_attempts_v1: attempts that are not posted, the age of the oldest answer among them, by how much
-- they differ from what budgets hold, and bills that are unknown. A part of read_figures_v1.
--
-- It reads the few rows that the partial indexes of these attempts name, not the log.
-- p_rows_max    at most so many rows of each kind are read. With more of them the difference is left out.
-- p_groups_max  at most so many pairs of provider and model are named.
CREATE FUNCTION callgate_figures_of_attempts_v1(p_rows_max int, p_groups_max int)
RETURNS TABLE (name text, labels text[], value float8)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH unposted AS MATERIALIZED (
        SELECT a.provider, a.model, a.status, a.hold_nano_usd, a.budget_ids, a.finished_at
          FROM ai_call_log a WHERE a.posted_nano_usd IS NULL LIMIT p_rows_max + 1
    ), held AS (
        SELECT u.budget_id, sum(a.hold_nano_usd) AS by_rows
          FROM unposted a CROSS JOIN LATERAL unnest(a.budget_ids) AS u(budget_id) GROUP BY u.budget_id
    ), drift AS (
        SELECT coalesce(sum(abs(b.reserved_nano_usd - coalesce(h.by_rows, 0))), 0) AS nano_usd
          FROM budget b LEFT JOIN held h ON h.budget_id = b.id WHERE b.ends_at > now() - interval '2 days'
    ), unknown AS MATERIALIZED (
        SELECT count(*) AS bills, coalesce(sum(k.posted_nano_usd), 0) AS nano_usd
          FROM (SELECT a.posted_nano_usd FROM ai_call_log a
                 WHERE (a.status = 'unknown' OR a.anomalies
                        && ARRAY['price_unknown', 'usage_implausible', 'usage_missing', 'usage_zero'])
                   AND a.settled_by_hand_at IS NULL LIMIT p_rows_max) k
    )
    (SELECT 'callgate_attempts_unposted', ARRAY[a.provider, a.model, a.status], count(*)::float8
       FROM unposted a GROUP BY a.provider, a.model, a.status ORDER BY count(*) DESC, 2 LIMIT p_groups_max)
     UNION ALL
    SELECT 'callgate_settle_lag_seconds', '{}',
           coalesce(greatest(0, extract(epoch FROM now() - min(a.finished_at))), 0)::float8
      FROM unposted a WHERE a.status = 'answered'
     UNION ALL
    SELECT 'callgate_audit_drift_usd', ARRAY['held'], (drift.nano_usd / 1e9)::float8
      FROM drift WHERE (SELECT count(*) FROM unposted) <= p_rows_max
     UNION ALL
    SELECT 'callgate_audit_drift_usd', ARRAY['spent'], (s.nano_usd / 1e9)::float8
      FROM callgate_spent_drift_v1(p_rows_max) AS s(nano_usd) WHERE s.nano_usd IS NOT NULL
     UNION ALL
    SELECT 'callgate_unknown_bills', '{}', bills::float8 FROM unknown
     UNION ALL
    SELECT 'callgate_unknown_bills_usd', '{}', (nano_usd / 1e9)::float8 FROM unknown
$$;
