-- callgate_running_v1: how many calls of an organisation run, of a type or of all (null); at most p_enough are counted.
--
-- They are counted from the rows, so no place is lost with a worker.
CREATE FUNCTION callgate_running_v1(p_org_id text, p_call_type text, p_enough int) RETURNS int
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT count(*) FROM (
        SELECT 1 FROM llm_call l
         WHERE l.org_id = p_org_id AND l.state = 'running' AND (p_call_type IS NULL OR l.call_type = p_call_type)
         LIMIT p_enough) running);
END $$;
