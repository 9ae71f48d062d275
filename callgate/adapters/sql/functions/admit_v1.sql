-- callgate_admit_v1: what the breaker of a provider, model and credential says to the next attempt of a call.
--
-- Rules     callgate/domain/breaker.py, `Breaker.admit`. `reserve` has made the breaker if it was not there.
-- Locks     the breaker, but only where it does not let everybody through: a healthy one is read and not locked. Then calls that
--           wait for it, SKIP LOCKED: nobody's turn comes after that of a call which somebody holds.
-- Returns   passed | on_trial | probe | wait.
CREATE FUNCTION callgate_admit_v1(
    p_provider text, p_model text, p_credential text, p_org_id text, p_attempts int,
    OUT admission text, OUT breaker_id bigint, OUT reason text
)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    b breaker%ROWTYPE;
BEGIN
    SELECT * INTO b FROM breaker x
     WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential;
    IF b.is_open OR b.proven_at IS NULL OR b.proven_at <= now() - interval '60 s' THEN
        SELECT * INTO b FROM breaker x
         WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential FOR UPDATE;
    END IF;
    breaker_id := b.id;
    reason := b.reason;
    IF NOT b.is_open AND b.proven_at > now() - interval '60 s' THEN
        admission := 'passed';
    ELSIF callgate_breaker_room_v1(b) = 0 THEN
        admission := 'wait';
    ELSIF NOT b.is_open THEN
        admission := 'on_trial';
    ELSIF EXISTS (SELECT 1 FROM llm_call l WHERE l.breaker_id = b.id AND l.attempt < p_attempts
                      FOR UPDATE SKIP LOCKED)
          OR b.probed_org = p_org_id AND (
            EXISTS (SELECT 1 FROM llm_call l
                     WHERE l.breaker_id = b.id AND l.attempt = p_attempts AND l.org_id < p_org_id
                       FOR UPDATE SKIP LOCKED)
            OR EXISTS (SELECT 1 FROM llm_call l
                        WHERE l.breaker_id = b.id AND l.attempt = p_attempts AND l.org_id > p_org_id
                           FOR UPDATE SKIP LOCKED)) THEN
        admission := 'wait';
    ELSE
        admission := 'probe';
    END IF;
END $$;
