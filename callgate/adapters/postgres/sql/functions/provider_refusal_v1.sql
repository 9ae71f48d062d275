-- callgate_provider_refusal_v1: why a call waits for its provider: a limit is used, the key is blocked, or
-- a breaker is open.
--
-- p_breaker_reason  what breaker_admission_v1 says. p_limit_name: the limit that refuses the call; null: a breaker does.
-- Returns           error: as JSON. wait_reason: rate_limited | provider.
CREATE FUNCTION callgate_provider_refusal_v1(
    c llm_call, p_breaker_id bigint, p_breaker_reason text, p_limit_name text, OUT error text, OUT wait_reason text
)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    b breaker%ROWTYPE;
    found text;                 -- what exactly failed
BEGIN
    SELECT * INTO b FROM breaker x WHERE x.id = p_breaker_id;
    wait_reason := CASE WHEN p_limit_name IS NOT NULL OR b.is_open AND b.reason = 'rate_limited' THEN 'rate_limited'
                        ELSE 'provider' END;
    SELECT x.cause INTO found FROM breaker x
     WHERE x.provider = b.provider AND x.model = b.model AND x.credential = b.credential AND x.is_open
       AND x.org_id = CASE WHEN b.is_open THEN '' ELSE c.org_id END;
    error := json_build_object(
        'code', CASE wait_reason WHEN 'provider' THEN 'provider_unavailable' ELSE 'rate_limited' END,
        'message', CASE WHEN p_limit_name IS NOT NULL THEN p_limit_name || ' are used'
                        ELSE concat(c.provider, '/', c.model, ' ', p_breaker_reason, ' (' || found || ')') END);
END $$;
