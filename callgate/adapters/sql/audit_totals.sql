-- audit_totals: one line of sums; every call has as many rows as attempts, every row has its call.
SELECT now() AS at,
       (SELECT json_object_agg(state, n)
          FROM (SELECT state, count(*) AS n FROM llm_call GROUP BY state) s) AS calls_by_state,
       (SELECT json_object_agg(status, n)
          FROM (SELECT status, count(*) AS n FROM ai_call_log GROUP BY status) s) AS attempts_by_status,
       (SELECT count(*) FROM llm_call c
          LEFT JOIN (SELECT call_id, generation, count(*) AS n FROM ai_call_log
                      GROUP BY call_id, generation) a USING (call_id, generation)
         WHERE c.attempt <> coalesce(a.n, 0))::int AS calls_with_missing_rows,
       (SELECT count(*) FROM ai_call_log a WHERE NOT EXISTS (
            SELECT 1 FROM llm_call c
             WHERE c.call_id = a.call_id AND c.generation = a.generation))::int AS rows_without_call,
       (SELECT count(*) FROM dead_letter)::int AS dead_letters,
       (SELECT coalesce(sum(posted_nano_usd), 0) FROM ai_call_log)::bigint AS spent_nano_usd,
       (SELECT count(*) FROM ai_call_log WHERE status = 'unknown')::int AS unknown_attempts
