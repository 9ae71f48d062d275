-- callgate_call_ids_v1: the call ids of a range, in order, p_limit at most (100 at most).
--
-- The range is that of a prefix of at least eight digits; of a wider one nothing is returned. A thousand generations are
-- looked at, along the primary key, so that a login cannot have all calls read. Only calls of organisations that the login
-- may read are returned.
-- Locks    none.
CREATE FUNCTION callgate_call_ids_v1(p_first uuid, p_last uuid, p_limit int) RETURNS TABLE (call_id uuid)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
BEGIN
    IF left(p_first::text, 8) <> left(p_last::text, 8) THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT DISTINCT y.call_id FROM (
        SELECT c.call_id, c.org_id FROM llm_call c WHERE c.call_id >= p_first AND c.call_id <= p_last
         ORDER BY c.call_id LIMIT 1000) y
     WHERE orgs IS NULL OR y.org_id = ANY (orgs)
     ORDER BY y.call_id LIMIT least(p_limit, 100);
END $$;
