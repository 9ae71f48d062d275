-- callgate_limit_name_v1: a limit's name for operators: `Limit.name`.
CREATE FUNCTION callgate_limit_name_v1(l flow_limit) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT (l).amount || ' ' || replace((l).measure, '_', ' ')
        || CASE (l).window_s WHEN 0 THEN '' WHEN 60 THEN ' per minute' WHEN 86400 THEN ' per day'
                             ELSE ' per ' || (l).window_s || ' s' END
        || ' of ' || (l).provider || '/' || (l).model
$$;
