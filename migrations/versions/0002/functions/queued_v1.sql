-- callgate_queued_v1: how many calls of an organisation are queued, of a class or of all (null); at most p_enough are
-- counted.
CREATE FUNCTION callgate_queued_v1(p_org_id text, p_enough int, p_priority smallint) RETURNS int
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT count(*)::int FROM (
        SELECT 1 FROM llm_call l
         WHERE l.org_id = p_org_id AND l.state = 'queued' AND l.priority >= coalesce(p_priority, 0)
         LIMIT p_enough) q
$$;
