-- callgate_concurrency_v1: list how many calls may run at a time, as it is declared and for each organisation that it
-- concerns, and how many run and wait.
--
-- Returns   org_id: empty: each organisation; then nothing is counted. call_type: empty: all calls, or each type. An
--           organisation is listed while calls of it run or wait for this, a thousand of them at most.
CREATE FUNCTION callgate_concurrency_v1() RETURNS TABLE (
    org_id text, call_type text, calls_of text, amount int, running int, waiting int)
LANGUAGE sql STABLE AS $$
    WITH counted AS MATERIALIZED (
        SELECT l.org_id, l.call_type, count(*) FILTER (WHERE l.state = 'running')::int AS running,
               count(*) FILTER (WHERE l.state = 'waiting')::int AS waiting
          FROM llm_call l
         WHERE l.state = 'running' OR l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
         GROUP BY l.org_id, l.call_type
    ), org AS MATERIALIZED (
        SELECT c.org_id, sum(c.running)::int AS running, sum(c.waiting)::int AS waiting
          FROM counted c GROUP BY c.org_id ORDER BY 3 DESC, 2 DESC LIMIT 1000
    ), line AS (
        SELECT o.org_id, '' AS call_type, 'organisation' AS calls_of,
               callgate_concurrency_max_v1('organisation', o.org_id) AS amount, o.running, o.waiting
          FROM org o
        UNION ALL
        SELECT c.org_id, c.call_type, 'call_type', callgate_concurrency_max_v1('call_type', c.call_type),
               c.running, c.waiting
          FROM counted c JOIN org o ON o.org_id = c.org_id
        UNION ALL
        SELECT CASE r.calls_of WHEN 'organisation' THEN r.name ELSE '' END,
               CASE r.calls_of WHEN 'call_type' THEN r.name ELSE '' END, r.calls_of, r.amount, 0, 0
          FROM flow_concurrency r
         WHERE NOT (r.calls_of = 'organisation' AND EXISTS (SELECT 1 FROM org o WHERE o.org_id = r.name))
    )
    SELECT * FROM line x WHERE x.amount IS NOT NULL ORDER BY x.org_id, x.call_type, x.calls_of
$$;
