-- callgate_note_health_v1: tell the breakers what attempts came to.
--
-- Rules     callgate/domain/breaker.py, `Breaker.after`. The attempts are posted by the caller, in this transaction.
-- Locks     breakers by id, and only those that have something to hear: a healthy one is told of a success once a second.
-- Returns   the breakers that were opened or closed, each as JSON; null if none has changed in any way.
CREATE FUNCTION callgate_note_health_v1(p_attempt_ids uuid[], p_healths text[], p_codes text[]) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    e record;                   -- an attempt that has ended
    b breaker%ROWTYPE;
    was_trial boolean;
    failed boolean;
    changes text[];
BEGIN
    FOR e IN
        SELECT x.id, a.attempt_id, a.started_at, k.health, k.code
          FROM unnest(p_attempt_ids, p_healths, p_codes) WITH ORDINALITY AS k(attempt_id, health, code, ord)
          JOIN ai_call_log a USING (attempt_id)
          JOIN breaker x ON x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
         WHERE a.attempt_id = ANY (x.trial_ids) OR NOT x.is_open AND (
               k.health IN ('failed', 'key_refused')
               OR k.health = 'alive' AND (
                  x.failures > 0 OR x.proven_at IS NULL OR x.proven_at <= now() - interval '1 s'))
         ORDER BY x.id, k.ord
    LOOP
        SELECT * INTO b FROM breaker x WHERE x.id = e.id FOR UPDATE;
        was_trial := e.attempt_id = ANY (b.trial_ids);
        failed := e.health IN ('failed', 'key_refused');
        changes := coalesce(changes, '{}');
        b.trial_ids := array_remove(b.trial_ids, e.attempt_id);
        IF e.started_at < b.changed_at OR b.is_open AND NOT was_trial THEN
            NULL;
        ELSIF e.health = 'alive' THEN
            b.failures := 0;
            b.proven_at := clock_timestamp();
            IF b.is_open THEN
                b.is_open := false; b.reason := NULL; b.changed_at := clock_timestamp(); b.trial_ids := '{}';
                b.probe_wait_s := 10; b.probe_at := NULL;
                changes := changes || callgate_breaker_change_v1(b);
            END IF;
        ELSIF b.is_open THEN
            b.probe_wait_s := least(600, b.probe_wait_s * CASE WHEN failed THEN 2 ELSE 1 END);
            b.probe_at := now() + make_interval(secs => b.probe_wait_s);
        ELSIF failed THEN
            b.failures := b.failures + 1;
            IF b.failures >= 3 OR e.health = 'key_refused' THEN
                b.is_open := true; b.reason := e.code; b.changed_at := clock_timestamp(); b.trial_ids := '{}';
                b.probe_wait_s := 10; b.probe_at := now() + interval '10 s';
                changes := changes || callgate_breaker_change_v1(b);
            END IF;
        END IF;
        UPDATE breaker x
           SET is_open = b.is_open, reason = b.reason, changed_at = b.changed_at, failures = b.failures,
               proven_at = b.proven_at, probe_wait_s = b.probe_wait_s, probe_at = b.probe_at,
               trial_ids = b.trial_ids
         WHERE x.id = b.id;
    END LOOP;
    RETURN changes;
END $$;
