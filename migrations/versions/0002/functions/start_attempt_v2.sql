-- callgate_start_attempt_v2: add a new attempt, and make its call running.
--
-- p_kind           first | retry | repair | probe: it finds out whether the provider answers again. The call then keeps
--                  the limit of its wait for the provider: p_wait_max_s from its first refusal.
-- p_limit_ids      the provider limits that it took from.
-- p_output_tokens  how much it took from limits of output tokens.
-- Locks            nothing. The caller holds the call, and has reserved the hold in the budgets.
-- Returns          the attempt's id.
CREATE FUNCTION callgate_start_attempt_v2(
    c llm_call, p_budget_ids bigint[], p_hold bigint, p_expires_in_s float8, p_worker_id text, p_price_source text,
    p_trace_id text, p_credential text, p_queue_ms int, p_kind text, p_wait_max_s float8, p_limit_ids bigint[],
    p_output_tokens int
) RETURNS uuid
LANGUAGE plpgsql AS $$
DECLARE
    new_id uuid;
BEGIN
    INSERT INTO ai_call_log AS a (
        call_id, generation, attempt, org_id, input_hash, call_type, provider, model, status,
        hold_nano_usd, budget_ids, price_source, queue_ms, trace_id, worker_id, credential, kind, limit_ids,
        output_token_bound)
    VALUES (
        c.call_id, c.generation, c.attempt + 1, c.org_id, c.input_hash, c.call_type, c.provider, c.model, 'dispatched',
        p_hold, p_budget_ids, p_price_source, p_queue_ms, p_trace_id, p_worker_id, p_credential,
        p_kind, p_limit_ids, p_output_tokens)
    RETURNING a.attempt_id INTO new_id;
    UPDATE llm_call l
       SET state = 'running', attempt = c.attempt + 1, attempt_id = new_id,
           due_at = now() + make_interval(secs => p_expires_in_s), error = NULL,
           requested_hold_nano_usd = NULL, sweeps = 0, breaker_id = NULL, is_in_line = false,
           -- Calls that were not tried come first.
           rank_at = l.rank_at + interval '10 min',
           -- Kept until an answer other than a refusal: a call that is refused again and again must end too.
           wait_until = CASE WHEN p_kind = 'probe'
                             THEN coalesce(l.wait_until, now() + make_interval(secs => p_wait_max_s))
                             ELSE l.wait_until END
     WHERE l.call_id = c.call_id AND l.generation = c.generation;
    RETURN new_id;
END $$;
