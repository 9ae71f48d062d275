-- callgate_note_health_v2: tell the breakers what attempts show about a provider: the shared breaker, and the
-- organisation's own.
--
-- Rules     callgate/domain/breaker.py, `Guard.after`. The caller has posted the attempts in this transaction.
-- p_blocked_for_s  how long the provider asked to be left alone, if it refused an attempt for its rate.
-- Locks     breakers, by name, and only those that the results can change: a healthy one notes one success a second.
--           Then the observed limit of a key that was blocked. The first failure of an organisation creates its own
--           breaker. A success deletes it, if it was closed for an hour.
-- Returns   the breakers that were opened or closed, each as JSON; null if no breaker was changed at all.
CREATE FUNCTION callgate_note_health_v2(
    p_attempt_ids uuid[], p_healths text[], p_codes text[], p_fingerprints text[], p_blocked_for_s float8[]
) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    e record;                   -- an attempt that has ended
    b breaker%ROWTYPE;
    was_open boolean;
    was_limited boolean;        -- it was blocked for its rate
    heard int[];                -- the rows that can change a breaker
    counts boolean;             -- whether a failure counts; see callgate_breaker_after_v2
    changes text[] := '{}';
BEGIN
    heard := callgate_heard_health_v1(p_attempt_ids, p_healths);
    IF heard IS NULL THEN
        RETURN NULL;
    END IF;

    INSERT INTO breaker (provider, model, credential, org_id, changed_at)
    SELECT DISTINCT x.provider, x.model, x.credential, a.org_id, x.changed_at
      FROM unnest(heard) AS n
     CROSS JOIN LATERAL (SELECT * FROM ai_call_log l WHERE l.attempt_id = p_attempt_ids[n] LIMIT 1) a
      JOIN breaker x ON x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
                    AND x.org_id = ''
     WHERE p_healths[n] IN ('failed', 'key_refused') AND NOT x.is_open
     ORDER BY x.provider, x.model, x.credential, a.org_id
    ON CONFLICT (provider, model, credential, org_id) DO NOTHING;
    PERFORM 1 FROM breaker x
      WHERE x.id IN (SELECT y.id FROM unnest(heard) AS n
                      CROSS JOIN LATERAL (SELECT * FROM ai_call_log l WHERE l.attempt_id = p_attempt_ids[n] LIMIT 1) a
                       JOIN breaker y ON y.provider = a.provider AND y.model = a.model
                                     AND y.credential = a.credential AND y.org_id IN ('', a.org_id))
      ORDER BY x.provider, x.model, x.credential, x.org_id FOR UPDATE;

    FOR e IN
        SELECT a.attempt_id, a.org_id, a.started_at, a.provider, a.model, a.credential,
               callgate_cause_v1(a.error_json) AS cause,
               p_fingerprints[n] AS fingerprint,
               p_healths[n] AS health, p_codes[n] AS code, p_blocked_for_s[n] AS blocked_for_s
          FROM unnest(heard) WITH ORDINALITY AS k(n, ord)
         CROSS JOIN LATERAL (SELECT * FROM ai_call_log l WHERE l.attempt_id = p_attempt_ids[n] LIMIT 1) a
         ORDER BY k.ord
    LOOP
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
            was_open := b.is_open;
            was_limited := b.is_open AND b.reason IS NOT DISTINCT FROM 'rate_limited';
            b := callgate_breaker_after_v2(b, e.attempt_id, e.org_id, e.started_at, e.health, e.code, counts,
                                           e.blocked_for_s,
                                           counts AND e.health = 'failed' AND callgate_fails_often_v1(b),
                                           e.cause, e.fingerprint);
            IF b.is_open AND b.reason = 'rate_limited' AND b.probe_at IS NOT NULL AND e.health = 'limited' THEN
                PERFORM callgate_observe_limit_v1(b, was_limited);
            END IF;
            IF b.is_open <> was_open THEN
                changes := changes || callgate_breaker_change_v1(b);
            END IF;
            DELETE FROM breaker x
             WHERE x.id = b.id AND b.org_id <> '' AND NOT b.is_open AND b.failed_orgs = '{}'
               AND b.changed_at <= now() - interval '1 h';
            UPDATE breaker x
               SET is_open = b.is_open, reason = b.reason, cause = b.cause,
                   error_fingerprint = b.error_fingerprint, changed_at = b.changed_at,
                   failed_orgs = b.failed_orgs, proven_at = b.proven_at, probe_wait_s = b.probe_wait_s,
                   probe_at = b.probe_at, turn_org = b.turn_org, trial_ids = b.trial_ids,
                   in_flight_max = b.in_flight_max, grown_at = b.grown_at
             WHERE x.id = b.id;
        END LOOP;
    END LOOP;
    RETURN changes;
END $$;
