-- callgate_due_v1: take calls whose due_at has come, oldest first; SKIP LOCKED, so that no two callers get the same one.
--
-- waiting -> queued (publish it). Everything else keeps its state and is lent to the caller for ten seconds: links to
-- deliver first, then an attempt whose money is not posted. That may be one of an ended call: a late answer ended it
-- while a newer attempt was on its way.
-- An attempt that has expired is left alone unless p_judge may judge: who is alive has had p_steady_s seconds to record.
-- With p_queued_before: queued calls due before that moment (their message was lost, and each is counted) and nothing else.
-- And calls that wait for headroom are woken where it is there: whoever was locked when it was freed was passed over, and who
-- was woken first may not have taken it. Of a hundred organisations, by lot: the wake-ups of thousands would outlast the time a
-- statement has, and with them nothing that was lost would ever be found.
-- Returns   kind: publish | settle | expired | deliver.
CREATE FUNCTION callgate_due_v1(p_limit int, p_judge text, p_steady_s float8, p_queued_before timestamptz)
RETURNS TABLE (kind text, call_id uuid, generation int, state text, attempt_id uuid,
               submission_ids uuid[], links text[])
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    c llm_call%ROWTYPE;
    a ai_call_log%ROWTYPE;
    taken int := 0;
    may_expire CONSTANT boolean := callgate_may_judge_v1(p_judge, make_interval(secs => p_steady_s));
    lent CONSTANT interval := interval '10 s';
BEGIN
    IF p_queued_before IS NOT NULL THEN
        PERFORM callgate_wake_v1(ARRAY(
            WITH RECURSIVE waiting (org_id) AS (
                (SELECT l.org_id FROM llm_call l WHERE l.wanted_nano_usd IS NOT NULL ORDER BY l.org_id LIMIT 1)
                UNION ALL
                SELECT (SELECT l.org_id FROM llm_call l
                         WHERE l.wanted_nano_usd IS NOT NULL AND l.org_id > w.org_id ORDER BY l.org_id LIMIT 1)
                  FROM waiting w WHERE w.org_id IS NOT NULL
            )
            SELECT w.org_id FROM waiting w WHERE w.org_id IS NOT NULL ORDER BY random() LIMIT 100));
        RETURN QUERY
        WITH lost AS (
            SELECT l.call_id, l.generation FROM llm_call l
             WHERE l.state = 'queued' AND l.due_at < p_queued_before
             ORDER BY l.due_at LIMIT p_limit FOR UPDATE SKIP LOCKED
        )
        UPDATE llm_call l SET due_at = now(), sweeps = l.sweeps + 1 FROM lost
         WHERE l.call_id = lost.call_id AND l.generation = lost.generation
        RETURNING 'publish', l.call_id, l.generation, l.state, NULL::uuid, '{}'::uuid[], '{}'::text[];
        RETURN;
    END IF;

    PERFORM callgate_release_waiting_v1();
    FOR c IN
        SELECT * FROM llm_call l
         WHERE l.state <> 'queued' AND l.due_at <= now()
           AND (may_expire OR l.state = 'waiting'
                OR EXISTS (SELECT 1 FROM ai_call_log x
                            WHERE x.call_id = l.call_id AND x.generation = l.generation
                              AND x.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                              AND x.status = 'answered')
                OR l.state <> 'running' AND EXISTS (
                            SELECT 1 FROM submission s
                             WHERE s.call_id = l.call_id AND s.generation = l.generation
                               AND s.link IS NOT NULL AND s.delivered_at IS NULL))
         ORDER BY l.due_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    LOOP
        taken := taken + 1;
        call_id := c.call_id; generation := c.generation; state := c.state;
        attempt_id := NULL; submission_ids := '{}'; links := '{}';
        IF c.state = 'waiting' THEN
            kind := 'publish';
            state := 'queued';
            UPDATE llm_call l SET state = 'queued', due_at = now(), wait_reason = NULL
             WHERE l.call_id = c.call_id AND l.generation = c.generation;
            RETURN NEXT;
            CONTINUE;
        END IF;

        UPDATE llm_call l SET due_at = now() + lent
         WHERE l.call_id = c.call_id AND l.generation = c.generation;
        IF c.state <> 'running' THEN
            SELECT coalesce(array_agg(s.submission_id), '{}'), coalesce(array_agg(s.link), '{}')
              INTO submission_ids, links
              FROM submission s WHERE s.call_id = c.call_id AND s.generation = c.generation
               AND s.link IS NOT NULL AND s.delivered_at IS NULL;
        END IF;
        SELECT * INTO a FROM ai_call_log x
         WHERE x.call_id = c.call_id AND x.generation = c.generation
           AND x.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
           AND x.posted_nano_usd IS NULL;
        IF submission_ids <> '{}' OR a.attempt_id IS NULL THEN
            kind := 'deliver';
        ELSE
            kind := CASE a.status WHEN 'answered' THEN 'settle' ELSE 'expired' END;
            attempt_id := a.attempt_id;
        END IF;
        -- From here on its claim cannot be renewed: it may become unknown at any moment.
        IF kind = 'expired' AND c.state = 'running' THEN
            UPDATE llm_call l SET error = json_build_object(
                'code', 'worker_lost', 'message', 'the worker vanished before it recorded an outcome')
             WHERE l.call_id = c.call_id AND l.generation = c.generation;
        END IF;
        RETURN NEXT;
    END LOOP;

    -- Late answers that were kept but never settled: the row itself says how long it has waited.
    FOR a IN
        SELECT * FROM ai_call_log x
         WHERE x.status = 'unknown' AND x.finished_at > x.posted_at AND x.finished_at <= now() - lent
         ORDER BY x.finished_at LIMIT p_limit - taken FOR UPDATE SKIP LOCKED
    LOOP
        kind := 'settle'; call_id := a.call_id; generation := a.generation; attempt_id := a.attempt_id;
        submission_ids := '{}'; links := '{}';
        SELECT l.state INTO state FROM llm_call l
         WHERE l.call_id = a.call_id AND l.generation = a.generation;
        UPDATE ai_call_log x SET finished_at = clock_timestamp() WHERE x.attempt_id = a.attempt_id;
        RETURN NEXT;
    END LOOP;
END $$;
