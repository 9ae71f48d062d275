-- callgate_earlier_claim_v1: decide a claim that may have been made before, or whose call is not queued.
--
-- A claim makes one attempt at most. If the same claim comes again for a running call, its first answer was lost. It
-- still has the call, and the attempt's expiry starts again. Exception: the attempt was already taken as expired, so it
-- may become unknown at any moment.
-- p_expires_in_s  seconds from now until the attempt expires.
-- Locks           nothing. The caller holds the call, unless the call is neither queued nor running.
-- Returns         outcome: reserved | not_claimed; null: the call can be claimed. attempt_id with not_claimed: this
--                 claim made that attempt, and then a late answer ended the call; the attempt was never sent.
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
                 WHERE a.call_id = c.call_id AND a.generation = c.generation AND a.worker_id = p_worker_id
                   AND a.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')) THEN
        outcome := 'not_claimed';
        SELECT a.attempt_id, a.attempt INTO attempt_id, attempt
          FROM ai_call_log a
         WHERE a.call_id = c.call_id AND a.generation = c.generation AND a.status = 'dispatched'
           AND a.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
           AND a.worker_id = p_worker_id;
    END IF;
END $$;
