-- callgate_org_work_v1: the organisations whose calls run or are queued: `OrgWork` in callgate/domain/slots.py.
--
-- p_since   a queued call is asking for a slot if it was queued since then; in the express lane for a minute.
-- Returns   queued and asking are counted up to 256, without those that would only be refused: is_held_back_v1. Of organisations with queued calls a thousand are looked at, by name.
CREATE FUNCTION callgate_org_work_v1(p_since timestamptz)
RETURNS TABLE (org_id text, running int, queued int, asking int)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_incremental_sort = off SET plan_cache_mode = force_generic_plan AS $$
-- The orders by priority name the index of open calls: by other statistics Postgres would read all calls of an organisation.
#variable_conflict use_column
DECLARE
    has_waiters CONSTANT boolean :=
        EXISTS (SELECT 1 FROM pause)
        OR (SELECT true FROM llm_call l WHERE l.breaker_id IS NOT NULL ORDER BY l.breaker_id LIMIT 1) IS NOT NULL
        OR (SELECT true FROM llm_call l
             WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
             ORDER BY l.org_id, hashtext(l.call_type) LIMIT 1) IS NOT NULL;
BEGIN
    RETURN QUERY
    WITH RECURSIVE queueing (org_id) AS (
        (SELECT l.org_id FROM llm_call l WHERE l.state = 'queued' ORDER BY l.org_id, l.priority LIMIT 1)
        UNION ALL
        SELECT (SELECT l.org_id FROM llm_call l
                 WHERE l.state = 'queued' AND l.org_id > q.org_id ORDER BY l.org_id, l.priority LIMIT 1)
          FROM queueing q WHERE q.org_id IS NOT NULL
    ), kind AS MATERIALIZED (
        SELECT o.org_id, x.call_type, x.provider, x.model, x.is_new, count(*)::int AS queued,
               (count(*) FILTER (
                   WHERE x.requested_hold_nano_usd IS NULL
                     AND (x.due_at > p_since OR x.lane = 'express' AND x.due_at > now() - interval '60 s')))::int AS asking
          FROM (SELECT q.org_id FROM queueing q WHERE q.org_id IS NOT NULL LIMIT 1000) o
         CROSS JOIN LATERAL (
            SELECT l.call_type, l.provider, l.model, l.requested_hold_nano_usd, l.due_at, l.lane,
                   NOT l.is_in_line AND l.breaker_id IS NULL AS is_new
              FROM llm_call l WHERE l.state = 'queued' AND l.org_id = o.org_id ORDER BY l.priority LIMIT 256) x
         GROUP BY o.org_id, x.call_type, x.provider, x.model, x.is_new
    ), queue AS MATERIALIZED (
        SELECT k.org_id, coalesce(sum(k.queued) FILTER (WHERE NOT h.is_held_back), 0)::int AS queued,
               coalesce(sum(k.asking) FILTER (WHERE NOT h.is_held_back), 0)::int AS asking
          FROM kind k
         CROSS JOIN LATERAL (
            SELECT CASE WHEN has_waiters AND k.is_new
                        THEN callgate_is_held_back_v1(k.org_id, k.call_type, k.provider, k.model)
                        ELSE false END AS is_held_back OFFSET 0) h
         GROUP BY k.org_id
    ), run AS MATERIALIZED (
        -- Not many more run than there are slots.
        SELECT l.org_id, count(*)::int AS running
          FROM (SELECT r.org_id FROM llm_call r WHERE r.state = 'running' ORDER BY r.org_id, r.priority OFFSET 0) l
         GROUP BY l.org_id
    )
    SELECT coalesce(q.org_id, r.org_id), coalesce(r.running, 0), coalesce(q.queued, 0), coalesce(q.asking, 0)
      FROM queue q FULL JOIN run r ON r.org_id = q.org_id;
END $$;
