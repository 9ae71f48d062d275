-- callgate_breaker_admission_v1: decide whether the two breakers of a provider, model and credential let an
-- organisation's next attempt start.
--
-- Rules     callgate/domain/breaker.py, `Guard.admit`. lock_breakers_v1 has created the shared breaker, the one of all
--           organisations.
-- Locks     the shared breaker, then the organisation's own, each only if it is not healthy. An organisation whose
--           attempts do not fail has no breaker of its own.
-- Returns   admission: passed | on_trial | probe | wait. breaker_id: the shared breaker; a call that waits is stored
--           with it. trial_of: the breakers of which the attempt is a trial. reason: why the call would wait.
CREATE FUNCTION callgate_breaker_admission_v1(
    p_provider text, p_model text, p_credential text, p_org_id text,
    OUT admission text, OUT breaker_id bigint, OUT trial_of bigint[], OUT reason text
)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    b breaker%ROWTYPE;
    own breaker%ROWTYPE;
    is_healthy boolean;
BEGIN
    SELECT * INTO b FROM breaker x
     WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential AND x.org_id = '';
    IF b.is_open OR b.proven_at IS NULL OR b.proven_at <= now() - interval '60 s' THEN
        SELECT * INTO b FROM breaker x
         WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential AND x.org_id = ''
           FOR UPDATE;
    END IF;
    SELECT * INTO own FROM breaker x
     WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential AND x.org_id = p_org_id;
    IF own.is_open THEN
        SELECT * INTO own FROM breaker x
         WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential
           AND x.org_id = p_org_id FOR UPDATE;
    END IF;
    is_healthy := NOT b.is_open AND b.proven_at > now() - interval '60 s';
    breaker_id := b.id;
    trial_of := array_remove(ARRAY[CASE WHEN is_healthy IS NOT TRUE THEN b.id END,
                                   CASE WHEN own.is_open THEN own.id END], NULL);
    IF is_healthy AND own.is_open IS NOT TRUE THEN
        admission := 'passed';
    ELSIF callgate_breaker_headroom_v1(b, own, p_org_id) = 0 THEN
        admission := 'wait';
    ELSIF b.is_open AND b.turn_org = p_org_id AND EXISTS (
            SELECT 1 FROM callgate_waiting_orgs_v1(b.id) AS o(org_id)
              LEFT JOIN breaker y ON y.provider = b.provider AND y.model = b.model AND y.credential = b.credential
                                 AND y.org_id = o.org_id
             WHERE o.org_id <> p_org_id AND callgate_breaker_headroom_v1(b, y, o.org_id) > 0
               AND callgate_has_free_call_v1(b.id, o.org_id)) THEN
        admission := 'wait';
    ELSE
        admission := CASE WHEN b.is_open OR own.is_open THEN 'probe' ELSE 'on_trial' END;
    END IF;
    reason := CASE WHEN b.is_open THEN 'is left alone: ' || coalesce(b.reason, '')
                   WHEN own.is_open THEN concat('is left alone for ', p_org_id, ': ', own.reason)
                   ELSE 'has few attempts on trial' END;
END $$;
