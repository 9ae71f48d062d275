-- callgate_breaker_change_v1: a breaker that was opened or closed, as `BreakerChange.from_json` reads it.
CREATE FUNCTION callgate_breaker_change_v1(b breaker) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT json_build_object('provider', b.provider, 'model', b.model, 'credential', b.credential,
                             'org_id', b.org_id, 'is_open', b.is_open, 'reason', b.reason)::text
$$;
