-- callgate_take_lost_messages_v2: take calls that are queued since before p_queued_before, oldest first: their messages
-- were lost. A sweep does not pass through the express queue, so a call that was published there counts as lost a minute later.
--
-- Each time a call is taken counts as a sweep. The caller publishes it again.
-- First, calls that wait for money are made due where there is headroom for them. free_budget_waiters_v1 skips a call
-- that is locked when money is freed, and a call that was made due may not have used the money. Only a hundred
-- organisations, chosen at random, are looked at: with thousands the statement would time out, and no lost message
-- would be found.
-- Locks     the calls: SKIP LOCKED, so that no two callers take the same one.
-- Returns   the calls, as take_due_v2 does.
CREATE FUNCTION callgate_take_lost_messages_v2(p_limit int, p_queued_before timestamptz)
RETURNS TABLE (kind text, call_id uuid, generation int, state text, attempt_id uuid, lane text)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    c llm_call%ROWTYPE;
    taken int := 0;
    is_refused boolean;
    refused uuid[] := '{}';     -- calls that could not be updated
    looks_again boolean := true;
BEGIN
    PERFORM callgate_free_budget_waiters_v1(ARRAY(
        WITH RECURSIVE waiting (org_id) AS (
            (SELECT l.org_id FROM llm_call l WHERE l.requested_hold_nano_usd IS NOT NULL ORDER BY l.org_id LIMIT 1)
            UNION ALL
            SELECT (SELECT l.org_id FROM llm_call l
                     WHERE l.requested_hold_nano_usd IS NOT NULL AND l.org_id > w.org_id ORDER BY l.org_id LIMIT 1)
              FROM waiting w WHERE w.org_id IS NOT NULL
        )
        SELECT w.org_id FROM waiting w WHERE w.org_id IS NOT NULL ORDER BY random() LIMIT 100));
    WHILE looks_again AND taken < p_limit LOOP
        looks_again := false;
        FOR c IN
            SELECT * FROM llm_call l
             WHERE l.state = 'queued' AND l.due_at < p_queued_before AND l.call_id <> ALL (refused)
               AND (l.due_at < p_queued_before - interval '60 s' OR l.lane IS NULL)
             ORDER BY l.due_at LIMIT p_limit - taken FOR UPDATE SKIP LOCKED
        LOOP
            call_id := c.call_id; generation := c.generation;
            SELECT t.kind, t.state, t.attempt_id, t.is_refused INTO kind, state, attempt_id, is_refused
              FROM callgate_take_call_v1(c, interval '10 s') t;
            IF is_refused THEN
                -- A call behind this batch takes its place.
                refused := refused || c.call_id;
                looks_again := true;
                CONTINUE;
            END IF;
            lane := callgate_lane_again_v1(c);
            taken := taken + 1;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
