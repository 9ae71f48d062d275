-- callgate_dead_groups_v1: group dead letters by failure, the largest group first. A call with a later generation is
-- not a dead letter.
--
-- Filters compare an expression (column || ''): see calls_v1.
CREATE FUNCTION callgate_dead_groups_v1(
    p_org_id text, p_call_type text, p_provider text, p_model text, p_error_fingerprint text, p_call_ids uuid[]
) RETURNS TABLE (
    error_fingerprint text, provider text, model text, sample_error text, count int,
    first_at timestamptz, last_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
BEGIN
    IF cardinality(p_call_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 calls at a time are looked for' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN QUERY
    SELECT coalesce(c.error_fingerprint, ''), c.provider, c.model,
           (array_agg(c.error ORDER BY c.created_at DESC))[1], count(*)::int, min(c.created_at), max(c.created_at)
      FROM llm_call c
     WHERE c.state = 'dead'
       AND NOT EXISTS (SELECT 1 FROM llm_call n
                        WHERE n.call_id = c.call_id AND n.generation > c.generation)
       AND (orgs IS NULL OR c.org_id = ANY (orgs))
       AND (p_call_type IS NULL OR c.call_type || '' = p_call_type)
       AND (p_provider IS NULL OR c.provider || '' = p_provider)
       AND (p_model IS NULL OR c.model || '' = p_model)
       AND (p_error_fingerprint IS NULL OR c.error_fingerprint || '' = p_error_fingerprint)
       AND (p_call_ids IS NULL OR c.call_id = ANY (p_call_ids))
     GROUP BY 1, 2, 3
     ORDER BY count(*) DESC, 1, 2, 3;
END $$;
