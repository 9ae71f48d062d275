-- callgate_note_health_v1: tell the breakers what attempts came to: everybody's, and the organisation's own.
--
-- Rules     callgate/domain/breaker.py, `Guard.after`. The attempts are posted by the caller, in this transaction.
-- Locks     breakers by name, and only those that have something to hear: a healthy one is told of a success once a second.
--           An organisation's own one is made by its first failure, and deleted by a success once it was closed for an hour.
-- Returns   the breakers that were opened or closed, each as JSON; null if none has changed in any way.
CREATE FUNCTION callgate_note_health_v1(p_attempt_ids uuid[], p_healths text[], p_codes text[]) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    e record;                   -- an attempt that has ended
    b breaker%ROWTYPE;
    heard int[];                -- the rows that say something
    was_trial boolean;
    failed boolean;
    counts boolean;             -- whether a failure does
    counted_max int;
    counted int;
    changes text[] := '{}';
BEGIN
    SELECT array_agg(k.ord ORDER BY k.ord) INTO heard
      FROM unnest(p_attempt_ids, p_healths) WITH ORDINALITY AS k(attempt_id, health, ord)
      JOIN ai_call_log a USING (attempt_id)
      JOIN breaker x ON x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
                    AND x.org_id = ''
      LEFT JOIN breaker y ON y.provider = a.provider AND y.model = a.model AND y.credential = a.credential
                         AND y.org_id = a.org_id
     WHERE a.attempt_id = ANY (x.trial_ids) OR a.attempt_id = ANY (y.trial_ids)
        OR k.health IN ('failed', 'key_refused') AND NOT x.is_open AND y.is_open IS NOT TRUE
        OR k.health = 'alive' AND (
           NOT x.is_open AND (x.failed_orgs <> '{}' OR x.proven_at IS NULL OR x.proven_at <= now() - interval '1 s')
           OR NOT y.is_open AND (y.failed_orgs <> '{}' OR y.changed_at <= now() - interval '1 h'));
    IF heard IS NULL THEN
        RETURN NULL;
    END IF;

    INSERT INTO breaker (provider, model, credential, org_id, changed_at)
    SELECT DISTINCT x.provider, x.model, x.credential, a.org_id, x.changed_at
      FROM unnest(heard) AS n
      JOIN ai_call_log a ON a.attempt_id = p_attempt_ids[n]
      JOIN breaker x ON x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
                    AND x.org_id = ''
     WHERE p_healths[n] IN ('failed', 'key_refused') AND NOT x.is_open
     ORDER BY x.provider, x.model, x.credential, a.org_id
    ON CONFLICT (provider, model, credential, org_id) DO NOTHING;
    PERFORM 1 FROM breaker x
      WHERE x.id IN (SELECT y.id FROM unnest(heard) AS n
                       JOIN ai_call_log a ON a.attempt_id = p_attempt_ids[n]
                       JOIN breaker y ON y.provider = a.provider AND y.model = a.model
                                     AND y.credential = a.credential AND y.org_id IN ('', a.org_id))
      ORDER BY x.provider, x.model, x.credential, x.org_id FOR UPDATE;

    FOR e IN
        SELECT a.attempt_id, a.org_id, a.started_at, a.provider, a.model, a.credential,
               p_healths[n] AS health, p_codes[n] AS code
          FROM unnest(heard) WITH ORDINALITY AS k(n, ord)
          JOIN ai_call_log a ON a.attempt_id = p_attempt_ids[n]
         ORDER BY k.ord
    LOOP
        failed := e.health IN ('failed', 'key_refused');
        SELECT NOT bool_or(x.is_open) AND e.started_at >= max(x.changed_at) INTO counts
          FROM breaker x
         WHERE x.provider = e.provider AND x.model = e.model AND x.credential = e.credential
           AND x.org_id IN ('', e.org_id);
        FOR b IN
            SELECT * FROM breaker x
             WHERE x.provider = e.provider AND x.model = e.model AND x.credential = e.credential
               AND x.org_id IN ('', e.org_id)
             ORDER BY x.org_id
        LOOP
            was_trial := e.attempt_id = ANY (b.trial_ids);
            b.trial_ids := array_remove(b.trial_ids, e.attempt_id);
            IF failed AND counts THEN
                counted_max := CASE b.org_id WHEN '' THEN 2 ELSE 3 END;
                counted := least(CASE e.health WHEN 'key_refused' THEN counted_max ELSE 1 END,
                                 counted_max - cardinality(array_positions(b.failed_orgs, e.org_id)));
                b.failed_orgs := (b.failed_orgs || array_fill(e.org_id, ARRAY[counted]))[1:3];
                IF cardinality(b.failed_orgs) = 3 THEN
                    b.is_open := true; b.reason := e.code; b.changed_at := clock_timestamp(); b.trial_ids := '{}';
                    b.probe_wait_s := 10; b.probe_at := now() + interval '10 s';
                    -- Who failed most often is asked last whether the provider is back.
                    SELECT u INTO b.turn_org FROM unnest(b.failed_orgs) u
                     GROUP BY u ORDER BY count(*) DESC, u COLLATE "C" LIMIT 1;
                    changes := changes || callgate_breaker_change_v1(b);
                END IF;
            ELSIF e.started_at < b.changed_at OR b.is_open AND NOT was_trial THEN
                NULL;
            ELSIF e.health = 'alive' THEN
                b.failed_orgs := '{}';
                b.proven_at := clock_timestamp();
                IF b.is_open THEN
                    b.is_open := false; b.reason := NULL; b.changed_at := clock_timestamp(); b.trial_ids := '{}';
                    b.probe_wait_s := 10; b.probe_at := NULL;
                    changes := changes || callgate_breaker_change_v1(b);
                END IF;
            ELSIF b.is_open THEN
                b.probe_wait_s := least(600, b.probe_wait_s * CASE WHEN failed THEN 2 ELSE 1 END);
                b.probe_at := now() + make_interval(secs => b.probe_wait_s);
            END IF;
            DELETE FROM breaker x
             WHERE x.id = b.id AND b.org_id <> '' AND NOT b.is_open AND b.failed_orgs = '{}'
               AND b.changed_at <= now() - interval '1 h';
            UPDATE breaker x
               SET is_open = b.is_open, reason = b.reason, changed_at = b.changed_at,
                   failed_orgs = b.failed_orgs, proven_at = b.proven_at, probe_wait_s = b.probe_wait_s,
                   probe_at = b.probe_at, turn_org = b.turn_org, trial_ids = b.trial_ids
             WHERE x.id = b.id;
        END LOOP;
    END LOOP;
    RETURN changes;
END $$;
