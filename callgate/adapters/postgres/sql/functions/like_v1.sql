-- callgate_like_v1: a pattern with * and ? as a pattern of LIKE.
CREATE FUNCTION callgate_like_v1(p_pattern text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT translate(regexp_replace(p_pattern, '([\\%_])', '\\\1', 'g'), '*?', '%_')
$$;
