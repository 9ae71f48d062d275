-- callgate_limit_applies_v1: whether a limit is one of a key, and is not outdated: `Limit.applies_to`, `is_current`.
CREATE FUNCTION callgate_limit_applies_v1(l flow_limit, p_provider text, p_model text, p_credential text, p_at timestamptz)
RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT (l).provider = p_provider AND (l).credential = p_credential
       AND CASE WHEN (l).is_shared THEN p_model LIKE callgate_like_v1((l).model) ELSE p_model = (l).model END
       AND CASE (l).source WHEN 'learned' THEN p_at - (l).changed_at < interval '1 day'
                           WHEN 'observed' THEN p_at - (l).changed_at < interval '10 min'
                                             OR p_at - (l).granted_at < make_interval(secs => (l).window_s + 1)
                           ELSE true END
$$;
