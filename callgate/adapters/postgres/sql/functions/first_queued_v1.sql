-- callgate_first_queued_v1: when the first of some calls was queued.
--
-- p_call_ids  calls; others than queued ones, and null, do not matter.
CREATE FUNCTION callgate_first_queued_v1(p_call_ids uuid[], p_generations int[]) RETURNS timestamptz
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT min(l.due_at) FROM llm_call l
     WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations)) AND l.state = 'queued'
$$;
