-- callgate_open_lines_v1: how many calls are open, by state, wait reason and lane, and how old the oldest of them is.
--
-- p_rows_max  at most so many queued calls are read, and as many of the others, those that are due first.
-- Returns   lane: only of queued calls. oldest_at: when the oldest of those that were read was submitted.
CREATE FUNCTION callgate_open_lines_v1(p_rows_max int)
RETURNS TABLE (state text, wait_reason text, lane text, calls int, oldest_at timestamptz)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT o.state, o.wait_reason, o.lane, count(*)::int, min(o.created_at)
      FROM ((SELECT l.state, '' AS wait_reason, coalesce(l.lane, 'call') AS lane, l.created_at FROM llm_call l
              WHERE l.state = 'queued' ORDER BY l.due_at LIMIT p_rows_max)
             UNION ALL
            (SELECT l.state, coalesce(l.wait_reason, ''), '', l.created_at FROM llm_call l
              WHERE l.state <> 'queued' AND l.due_at IS NOT NULL ORDER BY l.due_at LIMIT p_rows_max)) o
     WHERE o.state IN ('queued', 'running', 'waiting')
     GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
$$;
