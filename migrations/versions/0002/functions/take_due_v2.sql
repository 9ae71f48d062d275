-- callgate_take_due_v2: take calls whose due_at has come, oldest first.
--
-- A waiting call becomes queued, and the caller publishes it. Other calls have an attempt whose money is not posted.
-- They keep their state, and no other caller takes them for ten seconds. Such a call may have ended already, if a late
-- answer ended it while a newer attempt was under way.
-- An expired attempt is taken only if p_reaper may reap (may_reap_v1). Then its worker, if it is alive, has had
-- p_stable_s seconds to record its answer.
-- First, calls that wait for a provider are made due, as many as its breaker and limits have headroom for. So are
-- calls that find a place of their organisation; calls of the backlog; and calls that are not paused any more, as many as this takes.
-- Locks     the calls, and late answers: SKIP LOCKED, so that no two callers take the same one.
-- Returns   kind: publish | settle | expired; the call; and the lane in which it is to be published.
CREATE FUNCTION callgate_take_due_v2(p_limit int, p_reaper text, p_stable_s float8)
RETURNS TABLE (kind text, call_id uuid, generation int, state text, attempt_id uuid, lane text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    c llm_call%ROWTYPE;
    taken int := 0;
    is_refused boolean;
    refused uuid[] := '{}';     -- calls that could not be updated
    looks_again boolean := true;
    may_expire CONSTANT boolean := callgate_may_reap_v1(p_reaper, make_interval(secs => p_stable_s));
    hidden_for CONSTANT interval := interval '10 s';
BEGIN
    PERFORM callgate_free_provider_waiters_v1();
    PERFORM callgate_free_concurrency_waiters_v1(NULL);
    PERFORM callgate_release_backlog_v1(NULL);
    PERFORM callgate_free_paused_v1(p_limit);
    WHILE looks_again AND taken < p_limit LOOP
        looks_again := false;
        FOR c IN
            -- Calls that one statement made due together keep the order of their line.
            SELECT d.* FROM (
                SELECT * FROM llm_call l
                 WHERE l.state <> 'queued' AND l.due_at <= now() AND l.call_id <> ALL (refused)
                   AND (may_expire OR l.state = 'waiting'
                        OR EXISTS (SELECT 1 FROM ai_call_log x
                                    WHERE x.call_id = l.call_id AND x.generation = l.generation
                                      AND x.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                                      AND x.status = 'answered'))
                 ORDER BY l.due_at LIMIT p_limit - taken FOR UPDATE SKIP LOCKED) d
             ORDER BY d.due_at, d.rank_at
        LOOP
            call_id := c.call_id; generation := c.generation;
            SELECT t.kind, t.state, t.attempt_id, t.is_refused INTO kind, state, attempt_id, is_refused
              FROM callgate_take_call_v1(c, hidden_for) t;
            IF is_refused THEN
                refused := refused || c.call_id;
            END IF;
            IF kind IS NULL THEN
                -- A call behind this batch takes its place.
                looks_again := true;
                CONTINUE;
            END IF;
            lane := CASE WHEN kind = 'publish' THEN callgate_lane_again_v1(c) END;
            IF kind = 'publish' AND c.is_in_line AND c.wait_reason <> 'concurrency_limited' THEN
                -- A worker of 0.1.0 claimed it, or let it wait for something else. So it has left its line.
                UPDATE llm_call l SET is_in_line = false
                 WHERE l.call_id = c.call_id AND l.generation = c.generation;
            END IF;
            taken := taken + 1;
            RETURN NEXT;
        END LOOP;
    END LOOP;
    RETURN QUERY SELECT 'settle', t.*, NULL::text FROM callgate_take_late_answers_v1(p_limit - taken, hidden_for) t;
END $$;
