-- callgate_breaker_after_v2: a breaker as it is after an attempt has ended.
--
-- Rules     callgate/domain/breaker.py, `Breaker.after`: three failures open it. In the shared breaker at most two of
--           them are one organisation's. A success of an attempt that began after the last change closes it.
-- p_counts  whether a failure counts: both breakers are closed, and the attempt began after they last changed.
-- p_cause, p_fingerprint  what exactly failed; what calls that failed like that have in common.
-- p_fails_often   fails_often_v1: half of the last results are failures, which opens it too.
-- p_blocked_for_s  how long the provider asked to be left alone, if it refused the attempt for its rate.
-- Locks     nothing: it reads and writes no table.
CREATE FUNCTION callgate_breaker_after_v2(
    b breaker, p_attempt_id uuid, p_org_id text, p_started_at timestamptz, p_health text, p_code text, p_counts boolean,
    p_blocked_for_s float8, p_fails_often boolean, p_cause text, p_fingerprint text
) RETURNS breaker
LANGUAGE plpgsql AS $$
DECLARE
    has_failed CONSTANT boolean := p_health IN ('failed', 'key_refused');
    was_trial CONSTANT boolean := p_attempt_id = ANY (b.trial_ids);
    failures_max CONSTANT int := CASE b.org_id WHEN '' THEN 2 ELSE 3 END;  -- of one organisation
    failures int;
BEGIN
    b.trial_ids := array_remove(b.trial_ids, p_attempt_id);
    IF p_health = 'limited' THEN
        RETURN CASE b.org_id WHEN '' THEN callgate_block_key_v1(b, was_trial, p_started_at, p_blocked_for_s) ELSE b END;
    END IF;
    IF has_failed AND p_counts THEN
        failures := least(CASE p_health WHEN 'key_refused' THEN failures_max ELSE 1 END,
                          failures_max - cardinality(array_positions(b.failed_orgs, p_org_id)));
        b.failed_orgs := (b.failed_orgs || array_fill(p_org_id, ARRAY[failures]))[1:3];
        IF cardinality(b.failed_orgs) = 3 OR p_fails_often THEN
            b.is_open := true; b.reason := p_code; b.cause := p_cause; b.error_fingerprint := p_fingerprint;
            b.changed_at := clock_timestamp(); b.trial_ids := '{}';
            b.probe_wait_s := 10; b.probe_at := now() + interval '10 s';
            -- The organisation that failed most often is the last that may probe.
            SELECT u INTO b.turn_org FROM unnest(b.failed_orgs) u
             GROUP BY u ORDER BY count(*) DESC, u COLLATE "C" LIMIT 1;
        END IF;
    ELSIF p_started_at < b.changed_at OR b.is_open AND NOT was_trial THEN
        NULL;
    ELSIF p_health = 'alive' THEN
        b.failed_orgs := '{}';
        b.proven_at := clock_timestamp();
        IF b.is_open THEN
            b.is_open := false; b.reason := NULL; b.cause := NULL; b.error_fingerprint := NULL; b.changed_at := clock_timestamp(); b.trial_ids := '{}';
            b.probe_wait_s := 10; b.probe_at := NULL;
        END IF;
    ELSIF b.is_open THEN
        b.probe_wait_s := least(600, b.probe_wait_s * CASE WHEN has_failed THEN 2 ELSE 1 END);
        b.probe_at := now() + make_interval(secs => b.probe_wait_s);
    END IF;
    RETURN b;
END $$;
