-- callgate_free_paused_v1: make calls due that no pause covers any more, by rank, up to p_limit.
--
-- Paused calls are grouped by what pauses name, so that those that stay paused are not read one by one. Of these groups a
-- thousand are looked at. Calls of the others, if there are so many, have timers.
-- Locks     waiting calls: SKIP LOCKED, so that the order of locks is kept.
CREATE FUNCTION callgate_free_paused_v1(p_limit int) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    groups_max CONSTANT int := 1000;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM llm_call l WHERE l.wait_reason = 'paused') THEN
        RETURN;
    END IF;
    WITH RECURSIVE kind (org_id, call_type, provider, model, n) AS (
        (SELECT l.org_id, l.call_type, l.provider, l.model, 1 FROM llm_call l WHERE l.wait_reason = 'paused'
          ORDER BY l.org_id, l.call_type, l.provider, l.model LIMIT 1)
        UNION ALL
        SELECT x.*, k.n + 1
          FROM kind k CROSS JOIN LATERAL (
            SELECT l.org_id, l.call_type, l.provider, l.model FROM llm_call l
             WHERE l.wait_reason = 'paused'
               AND (l.org_id, l.call_type, l.provider, l.model) > (k.org_id, k.call_type, k.provider, k.model)
             ORDER BY l.org_id, l.call_type, l.provider, l.model LIMIT 1) x
         WHERE k.n < groups_max
    ), freed AS MATERIALIZED (
        SELECT k.* FROM kind k WHERE callgate_pause_of_v1(k.org_id, k.call_type, k.provider, k.model) IS NULL
    ), next AS MATERIALIZED (
        SELECT x.call_id, x.generation
          FROM freed f CROSS JOIN LATERAL (
            SELECT l.call_id, l.generation, l.rank_at FROM llm_call l
             WHERE l.wait_reason = 'paused' AND l.org_id = f.org_id AND l.call_type = f.call_type
               AND l.provider = f.provider AND l.model = f.model AND l.due_at > now()
             ORDER BY l.rank_at LIMIT p_limit FOR UPDATE SKIP LOCKED) x
         ORDER BY x.rank_at LIMIT p_limit
    )
    UPDATE llm_call l SET due_at = now() FROM next
     WHERE l.call_id = next.call_id AND l.generation = next.generation;
EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
    -- If a row cannot be updated, what else is due goes on.
    RAISE WARNING 'paused calls were not made due: %', SQLERRM;
END $$;
