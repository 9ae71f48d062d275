-- callgate_first_ended_v1: when the first call was submitted that ended in this way, replaced and discarded ones
-- included. See end_groups_v1.
CREATE FUNCTION callgate_first_ended_v1(p_state text, p_name text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
BEGIN
    IF p_state = 'dead' THEN
        RETURN least(
            (SELECT c.created_at FROM llm_call c
              WHERE c.state = 'dead' AND c.generation > 0 AND coalesce(c.error_fingerprint, '') = p_name
              ORDER BY c.created_at LIMIT 1),
            (SELECT c.created_at FROM llm_call c
              WHERE c.end_reason = 'discarded' AND c.generation > 0 AND coalesce(c.error_fingerprint, '') = p_name
              ORDER BY c.created_at LIMIT 1));
    END IF;
    RETURN (SELECT c.created_at FROM llm_call c
             WHERE c.state = 'rejected' AND c.generation > 0 AND c.end_reason = p_name ORDER BY c.created_at LIMIT 1);
END $$;
