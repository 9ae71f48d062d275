-- callgate_calls_v1: list calls, newest first. Only the filters that are not null apply.
--
-- Filters compare an expression (column || ''). With a plain column the planner would use statistics over all
-- organisations, and a client could see from the plan what they say.
CREATE FUNCTION callgate_calls_v1(
    p_org_id text, p_state text, p_wait_reason text, p_end_reason text, p_call_type text, p_provider text, p_model text,
    p_error_fingerprint text, p_call_ids uuid[], p_limit int
) RETURNS TABLE (call_id uuid, generation int)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
BEGIN
    IF cardinality(p_call_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 calls at a time are looked for' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN QUERY
    SELECT c.call_id, c.generation
      FROM llm_call c
     WHERE (orgs IS NULL OR c.org_id = ANY (orgs))
       AND (p_state IS NULL OR c.state = p_state)
       AND (p_wait_reason IS NULL OR c.wait_reason || '' = p_wait_reason)
       AND (p_end_reason IS NULL OR c.end_reason || '' = p_end_reason)
       AND (p_call_type IS NULL OR c.call_type || '' = p_call_type)
       AND (p_provider IS NULL OR c.provider || '' = p_provider)
       AND (p_model IS NULL OR c.model || '' = p_model)
       AND (p_error_fingerprint IS NULL OR c.error_fingerprint || '' = p_error_fingerprint)
       AND (p_call_ids IS NULL OR c.call_id = ANY (p_call_ids))
     ORDER BY c.created_at DESC, c.call_id, c.generation DESC
     LIMIT least(p_limit, 10000);
END $$;
