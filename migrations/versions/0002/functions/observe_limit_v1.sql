-- callgate_observe_limit_v1: after a refusal, let a key start again at half the rate that the provider has accepted.
--
-- The limit rises by that half each minute: see limit_at_v1. A key with a learned limit needs no other.
-- b           the shared breaker of the key: blocked for all until its probe_at.
-- p_was_open  it was blocked for its rate before already; then only the end of the block moves.
-- Locks       the observed limit of the key.
CREATE FUNCTION callgate_observe_limit_v1(b breaker, p_was_open boolean) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    accepted int;               -- requests of the last minute
BEGIN
    IF p_was_open THEN
        UPDATE flow_limit x SET changed_at = b.probe_at
         WHERE x.provider = b.provider AND x.model = b.model AND x.credential = b.credential AND x.source = 'observed';
        RETURN;
    END IF;
    IF EXISTS (SELECT 1 FROM callgate_limits_of_v1(b.provider, b.model, b.credential) x WHERE x.source = 'learned') THEN
        RETURN;
    END IF;
    SELECT count(*) INTO accepted FROM ai_call_log a
     WHERE a.attempt_id >= callgate_uuid_floor_v1(now() - interval '60 s')
       AND a.provider = b.provider AND a.model = b.model AND a.credential = b.credential
       AND (a.status IN ('succeeded', 'unknown') OR a.status = 'answered' AND a.error_json IS NULL
            OR a.status = 'failed' AND a.posted_nano_usd > 0);
    INSERT INTO flow_limit (provider, model, credential, source, measure, window_s, amount, is_shared, counts_used, level,
                            rise_per_s, changed_at)
    VALUES (b.provider, b.model, b.credential, 'observed', 'requests', 60, greatest(6, accepted / 2), false, false, 1,
            greatest(6, accepted / 2.0) / 60, b.probe_at)
    ON CONFLICT (provider, model, credential, source, measure, window_s) DO UPDATE
       SET amount = excluded.amount, rise_per_s = excluded.rise_per_s, changed_at = excluded.changed_at,
           level = least(flow_limit.level, 1);
END $$;
