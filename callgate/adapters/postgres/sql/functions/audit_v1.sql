-- callgate_audit_v1: read the whole ledger at one moment: each budget period beside the sum of its attempts, and sums
-- over all calls. Each call must have one row for each of its attempts, and each row must have its call.
--
-- Of a dropped partition only the number of rows is known. So the calls that are older than the newest dropped
-- partition are compared in sum: their attempts with the rows that are left plus the rows that were archived.
-- Locks     ai_call_log, shared, before it reads. So a partition that is being dropped is counted once, as rows or as
--           sums.
CREATE FUNCTION callgate_audit_v1()
RETURNS TABLE (
    at timestamptz, budgets json, calls_by_state json, attempts_by_status json, calls_with_missing_rows int,
    rows_without_call int, dead_letters int, spent_nano_usd bigint, unknown_attempts int)
LANGUAGE plpgsql SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    LOCK TABLE ai_call_log IN ACCESS SHARE MODE;
    -- One statement, so that all of it is of one moment.
    RETURN QUERY
    WITH archive AS (
        SELECT coalesce(max(ends_at) + interval '1 day', '-infinity') AS reaches_to,
               coalesce(sum(attempts), 0) AS attempts
          FROM ai_call_log_archive
    ), calls AS (
        SELECT c.attempt, c.created_at < archive.reaches_to AS is_archived, coalesce(a.n, 0) AS n,
               coalesce(a.numbers, 0) AS numbers, coalesce(a.newest, 0) AS newest
          FROM llm_call c CROSS JOIN archive
          LEFT JOIN (SELECT call_id, generation, count(*) AS n, count(DISTINCT attempt) AS numbers,
                            max(attempt) AS newest
                       FROM ai_call_log GROUP BY call_id, generation) a USING (call_id, generation)
    ), missing AS (
        SELECT count(*) FILTER (WHERE n <> numbers OR newest > attempt OR NOT is_archived AND n <> attempt) AS calls,
               coalesce(sum(attempt - n) FILTER (WHERE is_archived), 0) AS archived_attempts
          FROM calls
    ), periods AS (
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
    )
    SELECT now(),
           (SELECT coalesce(json_agg(p), '[]') FROM periods p),
           (SELECT coalesce(json_object_agg(state, n), '{}')
              FROM (SELECT state, count(*) AS n FROM llm_call GROUP BY state) s),
           (SELECT coalesce(json_object_agg(status, n), '{}')
              FROM (SELECT status, sum(attempts) AS n FROM ai_call_log_sums GROUP BY status) s),
           (SELECT m.calls + abs(m.archived_attempts - archive.attempts)
              FROM missing m CROSS JOIN archive)::int,
           (SELECT count(*) FROM ai_call_log a WHERE NOT EXISTS (
                SELECT 1 FROM llm_call c
                 WHERE c.call_id = a.call_id AND c.generation = a.generation))::int,
           (SELECT count(*) FROM dead_letter)::int,
           (SELECT coalesce(sum(posted_nano_usd), 0) FROM ai_call_log_sums)::bigint,
           (SELECT coalesce(sum(attempts), 0) FROM ai_call_log_sums WHERE status = 'unknown')::int;
END $$;
