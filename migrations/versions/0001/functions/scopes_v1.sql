-- callgate_scopes_v1: the scopes of a call: each budget of one of them must have headroom for it.
--
-- The same as `scopes_of` in callgate/domain/budgets.py.
CREATE FUNCTION callgate_scopes_v1(p_call_type text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ARRAY['org', 'call_type:' || p_call_type]
$$;
