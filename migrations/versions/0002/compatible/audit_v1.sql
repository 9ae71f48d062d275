-- callgate_audit_v1: read the ledger's figures at one moment, and prove the sums of the days that are not sealed.
--
-- For processes of 0.1.0: they take whatever is wrong with the sums for missing rows.
CREATE FUNCTION callgate_audit_v1()
RETURNS TABLE (
    at timestamptz, budgets json, calls_by_state json, attempts_by_status json, calls_with_missing_rows int,
    rows_without_call int, dead_letters int, spent_nano_usd bigint, unknown_attempts int)
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    missing int;
    orphans int;
BEGIN
    SELECT sum(p.calls_with_missing_rows + p.wrong_sums + p.wrong_budgets), sum(p.rows_without_call) INTO missing, orphans
      FROM callgate_sum_days_v1(false) AS d(day)
     CROSS JOIN LATERAL callgate_prove_sums_v1(d.day, d.day + interval '1 day') p;
    RETURN QUERY
    WITH limits AS MATERIALIZED (
        SELECT * FROM callgate_audit_bounds_v1()
    ), calls AS MATERIALIZED (
        SELECT * FROM callgate_audit_calls_v1(0, NULL)
    ), sums AS MATERIALIZED (
        SELECT s.* FROM limits l CROSS JOIN LATERAL callgate_audit_sums_v1(l.first_day, l.until_day) s
    )
    SELECT l.at,
           (SELECT coalesce(json_agg(b ORDER BY b.org_id, b.scope, b."window", b.starts_at), '[]')
              FROM callgate_audit_budgets_v1(0, l.budgets_until) b),
           (SELECT coalesce(json_object_agg(c.state, c.calls), '{}') FROM calls c),
           (SELECT coalesce(json_object_agg(x.status, x.n), '{}')
              FROM (SELECT y.status, sum(y.n) AS n
                      FROM (SELECT s.outcome AS status, s.attempts AS n FROM sums s WHERE s.outcome IS NOT NULL
                             UNION ALL SELECT o.key, o.value::bigint FROM json_each_text(l.attempts) o) y
                     GROUP BY y.status) x),
           (coalesce(missing, 0) + (SELECT sum(s.broken_seals) FROM sums s))::int, coalesce(orphans, 0),
           ((SELECT coalesce(sum(c.dead_letters), 0) FROM calls c) + l.unprocessable)::int,
           (SELECT coalesce(sum(s.posted_nano_usd), 0) FROM sums s)::bigint,
           (SELECT coalesce(sum(s.attempts) FILTER (WHERE s.outcome = 'unknown'), 0) FROM sums s)::int
      FROM limits l;
END $$;
