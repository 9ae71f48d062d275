-- callgate_move_call_v1: move a call to the state that a settled attempt gives it: succeeded, dead or waiting.
--
-- p_has_newer_attempt  a late answer ended the call while a newer attempt is under way. The newer attempt may still
--                      send until it expires, at the call's due_at. So due_at is kept. In all other ended calls
--                      clear_due_at_v1 clears it.
-- p_due_in_s           when a waiting call is due again.
-- Locks                the row of undelivered_call of a call that ends. The caller holds the call.
-- Returns              whether the call has ended and has links to deliver. The caller delivers them at once. After ten
--                      seconds any process may.
CREATE FUNCTION callgate_move_call_v1(
    p_call_id uuid, p_generation int, p_org_id text, p_attempt_id uuid, p_has_newer_attempt boolean, p_state text,
    p_due_in_s float8, p_error text, p_fingerprint text
) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    is_success CONSTANT boolean := p_state = 'succeeded';
    has_links boolean := false;
BEGIN
    IF p_state IN ('succeeded', 'dead') THEN
        has_links := callgate_schedule_delivery_v1(p_call_id, p_generation, p_org_id, interval '10 s');
    END IF;
    UPDATE llm_call l
       SET state = p_state,
           attempt_id = CASE WHEN is_success THEN p_attempt_id ELSE l.attempt_id END,
           due_at = CASE
               WHEN p_state = 'waiting'
                   THEN least(now() + make_interval(secs => coalesce(p_due_in_s, 0)), l.start_before)
               WHEN p_has_newer_attempt THEN greatest(l.due_at, now() + interval '10 s')
               ELSE now() + interval '10 s' END,
           error = CASE WHEN is_success THEN NULL ELSE p_error END,
           error_fingerprint = p_fingerprint,
           requested_hold_nano_usd = NULL, breaker_id = NULL,
           wait_reason = CASE p_state WHEN 'waiting' THEN 'retry' END,
           end_reason = CASE p_state WHEN 'dead' THEN callgate_error_code_v1(p_error) END
     WHERE l.call_id = p_call_id AND l.generation = p_generation;
    IF is_success THEN
        PERFORM callgate_end_savings_v1(p_call_id, p_generation);
    END IF;
    RETURN has_links;
END $$;
