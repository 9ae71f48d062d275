-- callgate_rule_makes_v1: whether a declared limit is one that a rule makes.
CREATE FUNCTION callgate_rule_makes_v1(r flow_rule, l flow_limit) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT (r).provider = (l).provider AND (r).measure = (l).measure AND (r).window_s = (l).window_s
       AND (r).is_shared = (l).is_shared
       AND CASE WHEN (r).is_shared THEN (r).model = (l).model ELSE (l).model LIKE callgate_like_v1((r).model) END
       AND ((r).credential = (l).credential OR (r).credential = '*' AND (l).credential <> '')
$$;
