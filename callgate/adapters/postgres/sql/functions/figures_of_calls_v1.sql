-- callgate_figures_of_calls_v1: how many calls are open, by state and wait reason, how old the oldest queued call is,
-- and how many links are undelivered. A part of read_figures_v1.
--
-- p_rows_max  at most so many rows of each kind are read, those that are due first.
CREATE FUNCTION callgate_figures_of_calls_v1(p_rows_max int)
RETURNS TABLE (name text, labels text[], value float8)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH queued AS MATERIALIZED (
        SELECT count(*) AS calls, extract(epoch FROM now() - min(q.due_at)) AS age_s
          FROM (SELECT l.due_at FROM llm_call l WHERE l.state = 'queued' ORDER BY l.due_at LIMIT p_rows_max) q
    ), others AS MATERIALIZED (
        SELECT o.state, coalesce(o.wait_reason, '') AS reason, count(*) AS calls
          FROM (SELECT l.state, l.wait_reason FROM llm_call l
                 WHERE l.state <> 'queued' AND l.due_at IS NOT NULL ORDER BY l.due_at LIMIT p_rows_max) o
         WHERE o.state IN ('running', 'waiting') GROUP BY 1, 2
    ), links AS MATERIALIZED (
        SELECT count(*) AS calls, extract(epoch FROM now() - min(u.deliver_at)) AS overdue_s
          FROM (SELECT d.deliver_at FROM undelivered_call d LIMIT p_rows_max) u
    )
    SELECT 'callgate_calls', ARRAY['queued', ''], calls::float8 FROM queued
     UNION ALL
    SELECT 'callgate_calls', ARRAY[k.state, k.reason], coalesce(o.calls, 0)::float8
      FROM (SELECT 'running' AS state, '' AS reason
             UNION ALL
            SELECT 'waiting', unnest(ARRAY['retry', 'budget_held', 'budget_exhausted', 'provider', 'quarantine', 'memory',
                                           'locked', 'rate_limited', 'backlog', 'paused', 'concurrency_limited'])) k
      LEFT JOIN others o USING (state, reason)
     UNION ALL
    SELECT 'callgate_queue_age_seconds', '{}', greatest(0, age_s)::float8 FROM queued
     UNION ALL
    SELECT 'callgate_undelivered_calls', '{}', calls::float8 FROM links
     UNION ALL
    SELECT 'callgate_links_overdue_seconds', '{}', greatest(0, overdue_s)::float8 FROM links
$$;
