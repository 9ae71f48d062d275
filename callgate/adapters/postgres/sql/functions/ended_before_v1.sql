-- callgate_ended_before_v1: whether the generation before a call ended in the same group of end_groups_v1.
CREATE FUNCTION callgate_ended_before_v1(p_state text, p_name text, p_call_id uuid, p_generation int) RETURNS boolean
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
BEGIN
    RETURN p_generation > 1 AND EXISTS (
        SELECT 1 FROM llm_call p
         WHERE p.call_id = p_call_id AND p.generation = p_generation - 1 AND p.state = p_state
           AND CASE p_state WHEN 'dead' THEN coalesce(p.error_fingerprint, '') ELSE p.end_reason END = p_name);
END $$;
