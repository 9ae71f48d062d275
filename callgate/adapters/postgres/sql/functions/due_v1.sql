-- callgate_due_v1: take calls whose due_at has come, oldest first; SKIP LOCKED, so that no two callers get the same one.
--
-- waiting -> queued (publish it). Everything else keeps its state and is lent to the caller for ten seconds: it has an attempt
-- whose money is not posted. That may be one of an ended call: a late answer ended it while a newer attempt was on its way.
-- Links that wait to be delivered are no concern of this: see links_v1.
-- An attempt that has expired is left alone unless p_reaper may reap: who is alive has had p_steady_s seconds to record.
-- With p_queued_before: queued calls due before that moment (their message was lost, and each is counted) and nothing else.
-- And calls that wait for headroom are woken where it is there: whoever was locked when it was freed was passed over, and who
-- was woken first may not have taken it. Of a hundred organisations, by lot: the wake-ups of thousands would outlast the time a
-- statement has, and with them nothing that was lost would ever be found.
-- Refused   a row that takes no such change stops none of those behind it: it is put off for an hour, or, where it does not
--           take that either, left where it is. The server's log names it.
-- Returns   kind: publish | settle | expired.
CREATE FUNCTION callgate_due_v1(p_limit int, p_reaper text, p_steady_s float8, p_queued_before timestamptz)
RETURNS TABLE (kind text, call_id uuid, generation int, state text, attempt_id uuid)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    c llm_call%ROWTYPE;
    a ai_call_log%ROWTYPE;
    taken int := 0;
    refused uuid[] := '{}';     -- calls that took no change
    looked boolean;             -- at any that was not taken
    may_expire CONSTANT boolean := callgate_may_reap_v1(p_reaper, make_interval(secs => p_steady_s));
    lent CONSTANT interval := interval '10 s';
BEGIN
    IF p_queued_before IS NOT NULL THEN
        PERFORM callgate_free_waiters_v1(ARRAY(
            WITH RECURSIVE waiting (org_id) AS (
                (SELECT l.org_id FROM llm_call l WHERE l.requested_hold_nano_usd IS NOT NULL ORDER BY l.org_id LIMIT 1)
                UNION ALL
                SELECT (SELECT l.org_id FROM llm_call l
                         WHERE l.requested_hold_nano_usd IS NOT NULL AND l.org_id > w.org_id ORDER BY l.org_id LIMIT 1)
                  FROM waiting w WHERE w.org_id IS NOT NULL
            )
            SELECT w.org_id FROM waiting w WHERE w.org_id IS NOT NULL ORDER BY random() LIMIT 100));
    ELSE
        PERFORM callgate_release_waiting_v1();
    END IF;

    WHILE taken < p_limit LOOP
        looked := false;
        -- Each half reads an index of its own; one of them runs.
        FOR c IN
            SELECT * FROM (
                SELECT * FROM llm_call l
                 WHERE p_queued_before IS NOT NULL AND l.state = 'queued' AND l.due_at < p_queued_before
                   AND l.call_id <> ALL (refused)
                 ORDER BY l.due_at LIMIT p_limit - taken FOR UPDATE SKIP LOCKED) lost
            UNION ALL
            SELECT * FROM (
                SELECT * FROM llm_call l
                 WHERE p_queued_before IS NULL AND l.state <> 'queued' AND l.due_at <= now()
                   AND l.call_id <> ALL (refused)
                   AND (may_expire OR l.state = 'waiting'
                        OR EXISTS (SELECT 1 FROM ai_call_log x
                                    WHERE x.call_id = l.call_id AND x.generation = l.generation
                                      AND x.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                                      AND x.status = 'answered'))
                 ORDER BY l.due_at LIMIT p_limit - taken FOR UPDATE SKIP LOCKED) due
        LOOP
            call_id := c.call_id; generation := c.generation; kind := NULL;
            BEGIN
                SELECT t.kind, t.state, t.attempt_id INTO kind, state, attempt_id FROM callgate_take_due_v1(c, lent) t;
            EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
                PERFORM callgate_defer_call_v1(c.call_id, c.generation, SQLERRM);
                refused := refused || c.call_id;
            END;
            IF kind IS NULL THEN
                -- Its place is free for one that is behind this batch.
                looked := true;
                CONTINUE;
            END IF;
            taken := taken + 1;
            RETURN NEXT;
        END LOOP;
        EXIT WHEN NOT looked;
    END LOOP;
    IF p_queued_before IS NOT NULL THEN
        RETURN;
    END IF;

    -- Late answers that were kept but never settled: the row itself says how long it has waited.
    FOR a IN
        SELECT * FROM ai_call_log x
         WHERE x.status = 'unknown' AND x.finished_at > x.posted_at AND x.finished_at <= now() - lent
         ORDER BY x.finished_at LIMIT p_limit - taken FOR UPDATE SKIP LOCKED
    LOOP
        kind := 'settle'; call_id := a.call_id; generation := a.generation; attempt_id := a.attempt_id;
        SELECT l.state INTO state FROM llm_call l
         WHERE l.call_id = a.call_id AND l.generation = a.generation;
        BEGIN
            UPDATE ai_call_log x SET finished_at = clock_timestamp() WHERE x.attempt_id = a.attempt_id;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
            RAISE WARNING 'attempt % cannot be taken: %', a.attempt_id, SQLERRM;
            CONTINUE;
        END;
        taken := taken + 1;
        RETURN NEXT;
    END LOOP;
END $$;
