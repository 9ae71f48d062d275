-- callgate_earlier_claim_v1: what a claim gets that may have been made before, or whose call is not queued.
--
-- A claim makes one attempt at most. The same claim again, of a running call: its first answer was lost on the way. It still
-- has the call, and the attempt's expiry starts again, unless the attempt was taken as expired: it may become unknown at any
-- moment.
-- Locks     nothing. The caller holds the call's lock, unless the call is neither queued nor running.
-- Returns   outcome: reserved | not_claimed; null: the call can be claimed. An attempt that is not claimed was made by this
--           claim, and a late answer then ended the call: it was never sent.
CREATE FUNCTION callgate_earlier_claim_v1(
    c llm_call, p_worker_id text, p_expires_in_s float8,
    OUT outcome text, OUT attempt_id uuid, OUT attempt int, OUT queue_ms int
)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    IF c.state = 'running' THEN
        outcome := 'not_claimed';
        SELECT a.attempt_id, a.attempt, a.queue_ms INTO attempt_id, attempt, queue_ms
          FROM ai_call_log a
         WHERE c.error IS NULL AND a.attempt_id = c.attempt_id AND a.status = 'dispatched'
           AND a.worker_id = p_worker_id;
        IF FOUND THEN
            outcome := 'reserved';
            UPDATE llm_call l SET due_at = now() + make_interval(secs => p_expires_in_s)
             WHERE l.call_id = c.call_id AND l.generation = c.generation;
        END IF;
    ELSIF c.state IS DISTINCT FROM 'queued'
          OR c.attempt > 0 AND EXISTS (
                SELECT 1 FROM ai_call_log a
                 WHERE a.call_id = c.call_id AND a.generation = c.generation AND a.worker_id = p_worker_id) THEN
        outcome := 'not_claimed';
        SELECT a.attempt_id, a.attempt INTO attempt_id, attempt
          FROM ai_call_log a
         WHERE a.call_id = c.call_id AND a.generation = c.generation AND a.status = 'dispatched'
           AND a.worker_id = p_worker_id;
    END IF;
END $$;
