-- callgate_release_backlog_v1: make calls of the backlog due, as many as their organisations may have in the broker.
--
-- The number of queued calls is counted from the rows. So neither a wiped broker nor a flood stops the backlog. While
-- slots are short, an organisation that has its share of them gets no more calls queued: released_v1.
-- An organisation that is paused as a whole keeps its backlog.
-- p_org_ids  only these organisations; null: a hundred that have a backlog, chosen at random.
-- Locks      calls of the backlog: SKIP LOCKED.
-- Returns    whether any call was made due.
CREATE FUNCTION callgate_release_backlog_v1(p_org_ids text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    at_once_part CONSTANT float8 := 0.25;
    slots CONSTANT int := callgate_slots_v1();
    ahead_max CONSTANT int := callgate_ahead_max_v1(slots);
    org text;
    room int;
    work_of text[];             -- organisations with work; asked once, if calls may follow. Per organisation
    running int[];              -- its calls that run,
    asking int[];               -- and those that ask for a slot
    has_freed boolean := false;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM llm_call l WHERE l.wait_reason = 'backlog' AND l.due_at > now()) THEN
        RETURN false;
    END IF;
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
        CONTINUE WHEN callgate_queued_v1(org, ahead_max, NULL) > ahead_max * (1 - at_once_part);
        IF work_of IS NULL THEN
            SELECT coalesce(array_agg(w.org_id), '{}'), array_agg(w.running), array_agg(w.asking)
              INTO work_of, running, asking
              FROM callgate_org_work_v1(now() - interval '60 s') w WHERE slots IS NOT NULL;
        END IF;
        room := callgate_released_v1(org, slots, work_of, running, asking);
        CONTINUE WHEN room <= 0;
        room := room - (SELECT count(*) FROM (
            SELECT 1 FROM llm_call l WHERE l.org_id = org AND l.wait_reason = 'backlog' AND l.due_at <= now()
             LIMIT ahead_max) on_their_way)::int;
        CONTINUE WHEN room <= 0;
        BEGIN
            UPDATE llm_call l SET due_at = now()
             WHERE (l.call_id, l.generation) IN (
                   SELECT x.call_id, x.generation FROM llm_call x
                    WHERE x.org_id = org AND x.wait_reason = 'backlog' AND x.due_at > now()
                    ORDER BY x.rank_at LIMIT room FOR UPDATE SKIP LOCKED);
            has_freed := has_freed OR FOUND;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            -- A row cannot be updated. The others, and the settlement that asked, go on.
            RAISE WARNING 'the backlog of % was not released: %', org, SQLERRM;
        END;
    END LOOP;
    RETURN has_freed;
END $$;
