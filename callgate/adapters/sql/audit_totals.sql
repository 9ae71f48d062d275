-- audit_totals: one line of sums; every call has one row for each of its attempts, every row has its call.
--
-- Rows of dropped partitions are known by their number only. So calls from before the newest of them are compared all
-- together: the attempts they began with the rows that are left and the rows that were archived.
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
)
SELECT now() AS at,
       (SELECT json_object_agg(state, n)
          FROM (SELECT state, count(*) AS n FROM llm_call GROUP BY state) s) AS calls_by_state,
       (SELECT json_object_agg(status, n)
          FROM (SELECT status, sum(attempts) AS n FROM ai_call_log_sums GROUP BY status) s) AS attempts_by_status,
       (SELECT m.calls + abs(m.archived_attempts - archive.attempts)
          FROM missing m CROSS JOIN archive)::int AS calls_with_missing_rows,
       (SELECT count(*) FROM ai_call_log a WHERE NOT EXISTS (
            SELECT 1 FROM llm_call c
             WHERE c.call_id = a.call_id AND c.generation = a.generation))::int AS rows_without_call,
       (SELECT count(*) FROM dead_letter)::int AS dead_letters,
       (SELECT coalesce(sum(posted_nano_usd), 0) FROM ai_call_log_sums)::bigint AS spent_nano_usd,
       (SELECT coalesce(sum(attempts), 0) FROM ai_call_log_sums WHERE status = 'unknown')::int AS unknown_attempts
