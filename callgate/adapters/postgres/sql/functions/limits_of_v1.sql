-- callgate_limits_of_v1: the limits of a key that are not outdated.
--
-- Those of its model are found by name. Shared ones are compared with their patterns: few are declared.
CREATE FUNCTION callgate_limits_of_v1(p_provider text, p_model text, p_credential text) RETURNS SETOF flow_limit
LANGUAGE sql STABLE AS $$
    SELECT l.* FROM (
        SELECT x.* FROM flow_limit x
         WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential AND NOT x.is_shared
         UNION ALL
        SELECT x.* FROM flow_limit x
         WHERE x.provider = p_provider AND x.credential = p_credential AND x.is_shared
    ) l
     WHERE callgate_limit_applies_v1(l, p_provider, p_model, p_credential, now())
$$;
