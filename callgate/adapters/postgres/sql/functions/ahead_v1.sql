-- callgate_ahead_v1: how many calls come before one that waits for a place of its organisation, or for held money.
--
-- Those that wait for the same: before a place by turn, before money by age. At most ten thousand of each are counted.
-- Returns   no row, if the call waits for something else. of_call_type: those of its call type.
CREATE FUNCTION callgate_ahead_v1(p_call_id uuid, p_generation int)
RETURNS TABLE (of_call_type int, of_organisation int)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    counted_max CONSTANT int := 10000;
    c llm_call%ROWTYPE;
BEGIN
    SELECT * INTO c FROM llm_call l WHERE l.call_id = p_call_id AND l.generation = p_generation;
    IF c.wait_reason = 'concurrency_limited' THEN
        RETURN QUERY
        SELECT (SELECT count(*)::int FROM (
                    SELECT 1 FROM llm_call l
                     WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
                       AND l.org_id = c.org_id AND hashtext(l.call_type) = hashtext(c.call_type)
                       AND l.call_type = c.call_type AND l.rank_at < c.rank_at LIMIT counted_max) x),
               (SELECT count(*)::int FROM (
                    SELECT 1 FROM llm_call l
                     WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
                       AND l.org_id = c.org_id AND l.rank_at < c.rank_at LIMIT counted_max) x);
    ELSIF c.wait_reason = 'budget_held' THEN
        RETURN QUERY
        SELECT count(*) FILTER (WHERE x.call_type = c.call_type)::int, count(*)::int
          FROM (SELECT l.call_type FROM llm_call l
                 WHERE l.org_id = c.org_id AND l.requested_hold_nano_usd IS NOT NULL AND l.created_at < c.created_at
                 ORDER BY l.created_at LIMIT counted_max) x;
    END IF;
END $$;
