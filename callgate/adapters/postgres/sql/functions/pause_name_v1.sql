-- callgate_pause_name_v1: what a pause covers, as the action log names it; the same as `str(PauseKey)` in
-- callgate/domain/pauses.py.
CREATE FUNCTION callgate_pause_name_v1(p_provider text, p_model text, p_call_type text, p_org_id text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(nullif(concat_ws(', ',
        'provider ' || nullif(p_provider, ''), 'model ' || nullif(p_model, ''),
        'call type ' || nullif(p_call_type, ''), 'organisation ' || nullif(p_org_id, '')), ''), 'everything')
$$;
