-- callgate_record_v1: store a provider's answer before anything else is done with it.
--
-- A dispatched attempt becomes answered. If the attempt is already unknown, its first answer is stored too, and is
-- settled again. After a week it is refused: what is posted by then stays posted.
-- Locks     the attempts, by id. clock_timestamp() is read after that, so finished_at and posted_at are in the order of
--           the events.
-- Returns   per row: recorded | late | closed.
CREATE FUNCTION callgate_record_v1(
    p_attempt_ids uuid[], p_replies bytea[], p_errors text[], p_latencies_ms int[],
    p_provider_request_ids text[]
) RETURNS TABLE (ord int, outcome text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    a ai_call_log%ROWTYPE;
BEGIN
    PERFORM callgate_lock_attempts_v1(p_attempt_ids);
    FOR row_no IN 1 .. cardinality(p_attempt_ids) LOOP
        ord := row_no;
        SELECT * INTO a FROM ai_call_log l WHERE l.attempt_id = p_attempt_ids[ord];
        outcome := CASE
            WHEN a.status = 'dispatched' THEN 'recorded'
            WHEN a.status = 'unknown' AND a.finished_at IS NULL
                 AND a.started_at > now() - interval '7 days' THEN 'late'
            WHEN a.status = 'answered' THEN 'recorded'
            ELSE 'closed' END;
        IF a.status IN ('dispatched', 'unknown') AND outcome <> 'closed' THEN
            UPDATE ai_call_log l
               SET status = CASE WHEN a.status = 'dispatched' THEN 'answered' ELSE a.status END,
                   reply = p_replies[ord], error_json = p_errors[ord],
                   latency_ms = p_latencies_ms[ord], provider_request_id = p_provider_request_ids[ord],
                   finished_at = clock_timestamp()
             WHERE l.attempt_id = p_attempt_ids[ord];
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
