-- callgate_end_v1: cancel queued or waiting calls, or discard dead ones. Their links become due.
--
-- A tenant's login may cancel calls of its own organisations. It may not discard any.
-- p_error   why, as JSON.
-- p_states  only calls in these states are ended. So a call that has died meanwhile is not cancelled.
-- Locks     the calls that no other session holds. Then the rows of undelivered_call of those calls. The other
--           calls are tried again for a fifth of a second, because usually a submission is just joining them. After
--           that they stay as they are.
-- Returns   the calls that were ended.
CREATE FUNCTION callgate_end_v1(p_call_ids uuid[], p_generations int[], p_error text, p_states text[])
RETURNS TABLE (call_id uuid, generation int)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    own_orgs CONSTANT text[] := callgate_tenant_orgs_v1();
    call_ids uuid[];            -- of calls that may be ended, and are not yet
    generations int[];
    org text;
BEGIN
    IF cardinality(p_call_ids) > 1000 OR octet_length(p_error) > 16384 THEN
        RAISE EXCEPTION 'at most 1000 calls at a time are ended, for a reason of at most 16384 bytes'
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM p_error::json;
    FOR try IN 1 .. 5 LOOP
        SELECT array_agg(l.call_id), array_agg(l.generation) INTO call_ids, generations FROM llm_call l
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations))
           AND (own_orgs IS NULL OR l.org_id = ANY (own_orgs))
           AND l.state = ANY (p_states)
           AND (l.state IN ('queued', 'waiting') OR l.state = 'dead' AND own_orgs IS NULL);
        EXIT WHEN call_ids IS NULL;
        IF try > 1 THEN
            PERFORM pg_sleep(0.05);
        END IF;
        call_ids := callgate_lock_calls_v1(call_ids, generations);
        FOR call_id, generation, org IN
        UPDATE llm_call l
           SET state = 'rejected', error = p_error, requested_hold_nano_usd = NULL, breaker_id = NULL, wait_reason = NULL,
               end_reason = callgate_error_code_v1(p_error), due_at = NULL
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(call_ids, generations))
           AND l.state = ANY (p_states) AND l.state IN ('queued', 'waiting', 'dead')
        RETURNING l.call_id, l.generation, l.org_id
        LOOP
            PERFORM callgate_schedule_delivery_v1(call_id, generation, org, interval '0');
            RETURN NEXT;
        END LOOP;
    END LOOP;
END $$;
