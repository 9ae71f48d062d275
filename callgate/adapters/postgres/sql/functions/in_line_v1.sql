-- callgate_in_line_v1: how many calls of a type of an organisation wait for a place, or were woken and do not run yet; at
-- most p_enough are counted.
--
-- A worker of 0.1.0 leaves is_in_line set when a call waits for something else, or runs. Such a call is not counted.
CREATE FUNCTION callgate_in_line_v1(p_org_id text, p_call_type text, p_enough int) RETURNS int
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT count(*) FROM (
        SELECT 1 FROM llm_call l
         WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
           AND l.org_id = p_org_id AND hashtext(l.call_type) = hashtext(p_call_type) AND l.call_type = p_call_type
         LIMIT p_enough) waiting);
END $$;
