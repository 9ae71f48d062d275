-- callgate_block_key_v1: a shared breaker after the provider refused an attempt for its rate: blocked for all calls until
-- the provider's time, and then open to one probe.
--
-- Rules         `Breaker.limited` in callgate/domain/breaker.py. A refused probe doubles the wait. An attempt that was
--               sent before the key was blocked, or unblocked, tells nothing new, but may prolong the time.
-- p_was_trial   the attempt was a probe, or on trial.
-- Locks         nothing: it reads and writes no table.
CREATE FUNCTION callgate_block_key_v1(b breaker, p_was_trial boolean, p_started_at timestamptz, p_blocked_for_s float8)
RETURNS breaker
LANGUAGE plpgsql AS $$
DECLARE
    until CONSTANT timestamptz := now() + make_interval(secs => coalesce(p_blocked_for_s, 0));
BEGIN
    IF b.is_open AND b.probe_at IS NULL OR NOT b.is_open AND p_started_at < b.changed_at THEN
        RETURN b;
    END IF;
    IF b.is_open AND NOT p_was_trial THEN
        b.probe_at := greatest(b.probe_at, until);
        RETURN b;
    END IF;
    b.probe_wait_s := CASE WHEN b.is_open THEN least(600, 2 * b.probe_wait_s) ELSE 5 END;
    b.probe_at := greatest(until, now() + make_interval(secs => b.probe_wait_s));
    IF NOT b.is_open OR b.reason IS DISTINCT FROM 'rate_limited' THEN
        b.in_flight_max := 16; b.grown_at := clock_timestamp();
    END IF;
    b.reason := 'rate_limited'; b.cause := NULL; b.error_fingerprint := NULL;
    IF NOT b.is_open THEN
        b.is_open := true; b.changed_at := clock_timestamp(); b.trial_ids := '{}';
    END IF;
    RETURN b;
END $$;
