-- callgate_limit_need_v1: what one attempt takes of a measure: `Need.of`.
CREATE FUNCTION callgate_limit_need_v1(p_measure text, p_input_tokens bigint, p_output_tokens bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_measure WHEN 'input_tokens' THEN p_input_tokens
                          WHEN 'output_tokens' THEN p_output_tokens
                          WHEN 'tokens' THEN p_input_tokens + p_output_tokens
                          ELSE 1 END
$$;
