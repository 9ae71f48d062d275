-- callgate_release_backlog_v1: make calls of the backlog due, as many as their organisations may have in the broker.
--
-- The number of queued calls is counted from the rows. So neither a wiped broker nor a flood stops the backlog.
-- An organisation that is paused as a whole keeps its backlog.
-- p_org_ids  only these organisations; null: a hundred that have a backlog, chosen at random.
-- Locks      calls of the backlog: SKIP LOCKED.
-- Returns    whether any call was made due.
CREATE FUNCTION callgate_release_backlog_v1(p_org_ids text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ahead_max CONSTANT int := 1000;
    at_once_min CONSTANT int := 100;
    org text;
    room int;
    has_freed boolean := false;
BEGIN
    FOR org IN
        WITH RECURSIVE waiting (org_id) AS (
            (SELECT l.org_id FROM llm_call l WHERE l.wait_reason = 'backlog' AND l.due_at > now()
              ORDER BY l.org_id LIMIT 1)
            UNION ALL
            SELECT (SELECT l.org_id FROM llm_call l WHERE l.wait_reason = 'backlog' AND l.org_id > w.org_id
                     ORDER BY l.org_id LIMIT 1)
              FROM waiting w WHERE w.org_id IS NOT NULL
        )
        SELECT w.org_id FROM waiting w
         WHERE w.org_id IS NOT NULL AND (p_org_ids IS NULL OR w.org_id = ANY (p_org_ids))
           AND NOT EXISTS (SELECT 1 FROM pause p
                            WHERE p.org_id IN ('', w.org_id) AND p.call_type = '' AND p.provider = '' AND p.model = '')
         ORDER BY random() LIMIT 100
    LOOP
        room := ahead_max - callgate_queued_v1(org, ahead_max, NULL);
        CONTINUE WHEN room < at_once_min;
        room := room - (SELECT count(*) FROM (
            SELECT 1 FROM llm_call l WHERE l.org_id = org AND l.wait_reason = 'backlog' AND l.due_at <= now()
             LIMIT ahead_max) on_their_way)::int;
        CONTINUE WHEN room <= 0;
        BEGIN
            UPDATE llm_call l SET due_at = now()
             WHERE (l.call_id, l.generation) IN (
                   SELECT x.call_id, x.generation FROM llm_call x
                    WHERE x.org_id = org AND x.wait_reason = 'backlog' AND x.due_at > now()
                    ORDER BY x.turn_at LIMIT room FOR UPDATE SKIP LOCKED);
            has_freed := has_freed OR FOUND;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            -- A row cannot be updated. The others, and the settlement that asked, go on.
            RAISE WARNING 'the backlog of % was not released: %', org, SQLERRM;
        END;
    END LOOP;
    RETURN has_freed;
END $$;
