-- callgate_refuse_claim_v2: do not claim a queued call: let it wait until p_due_at (p_wait_reason), or end it
-- (p_wait_reason is null): it is rejected.
--
-- If a breaker had made the call due, and it is now refused for another reason, the next organisation has its turn.
-- p_wait_until         until when the call may wait in total; null: that is not counted.
-- p_breaker_id         the shared breaker for which the call waits.
-- p_has_asked_breaker  whether the breakers have decided about this claim.
-- p_keep_sweeps        keep the count of sweeps that found the call, because the caller has not read the request.
-- p_output_tokens      how much the call takes from limits of output tokens.
-- p_is_repair          the attempt would have repaired an answer. Such a call is not rejected but dead, with the failure of
--                      its newest attempt: it was paid, so the same submission must not make it again.
-- Locks                a breaker that is not healthy; lock_breakers_v1 has locked it already. If the call
--                      ends, also its row of undelivered_call. The caller holds the call.
-- Returns              the call's new state.
CREATE FUNCTION callgate_refuse_claim_v2(
    c llm_call, p_error text, p_wait_reason text, p_due_at timestamptz, p_wait_until timestamptz,
    p_requested_hold bigint, p_breaker_id bigint,
    p_has_asked_breaker boolean, p_keep_sweeps boolean, p_output_tokens int, p_is_repair boolean
) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    new_state CONSTANT text := CASE WHEN p_wait_reason IS NOT NULL THEN 'waiting' WHEN p_is_repair THEN 'dead' ELSE 'rejected' END;
    why text := p_error;
BEGIN
    IF new_state = 'dead' THEN
        why := coalesce((SELECT a.error_json FROM ai_call_log a WHERE a.attempt_id = c.attempt_id LIMIT 1), p_error);
    END IF;
    IF new_state <> 'waiting' THEN
        PERFORM callgate_schedule_delivery_v1(c.call_id, c.generation, c.org_id, interval '0');
    END IF;
    IF c.breaker_id IS NOT NULL AND NOT p_has_asked_breaker THEN
        UPDATE breaker x SET turn_org = c.org_id
         WHERE x.id = c.breaker_id
           AND (x.is_open OR x.proven_at IS NULL OR x.proven_at <= now() - interval '60 s');
    END IF;
    UPDATE llm_call l
       SET state = new_state, error = why,
           -- At its deadline it is claimed once more, and ends.
           due_at = CASE WHEN p_wait_reason IS NOT NULL THEN least(p_due_at, l.start_before) END,
           wait_reason = p_wait_reason,
           end_reason = CASE WHEN p_wait_reason IS NULL THEN callgate_error_code_v1(why) END,
           -- Only a call that waits for money is due when money is freed.
           requested_hold_nano_usd =
               CASE WHEN p_wait_reason IN ('budget_held', 'budget_exhausted') THEN p_requested_hold END,
           breaker_id = CASE WHEN p_wait_reason IN ('provider', 'rate_limited') THEN p_breaker_id END,
           wait_until = p_wait_until,
           is_in_line = coalesce(p_wait_reason = 'concurrency_limited', false),
           output_token_bound = p_output_tokens,
           sweeps = CASE WHEN p_keep_sweeps THEN l.sweeps ELSE 0 END
     WHERE l.call_id = c.call_id AND l.generation = c.generation;
    RETURN new_state;
END $$;
