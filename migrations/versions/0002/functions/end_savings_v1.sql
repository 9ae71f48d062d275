-- callgate_end_savings_v1: append what the submissions saved that had joined a call which has just succeeded.
--
-- Locks     nothing. The caller holds the call, so no submission joins it meanwhile.
CREATE FUNCTION callgate_end_savings_v1(p_call_id uuid, p_generation int) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO attempt_delta (
        starts_at, org_id, call_type, provider, model, kind, outcome, budget_ids, saved_nano_usd)
    SELECT s.starts_at, c.org_id, c.call_type, c.provider, c.model, 'collapsed', 'joined', '{}',
           s.joined * callgate_call_cost_v1(c.call_id, c.generation, c.created_at)
      FROM (SELECT callgate_quarter_v1(x.created_at) AS starts_at, count(*) AS joined FROM submission x
             WHERE x.call_id = p_call_id AND x.generation = p_generation AND x.outcome = 'joined'
             GROUP BY 1) s
     CROSS JOIN llm_call c
     WHERE c.call_id = p_call_id AND c.generation = p_generation;
END $$;
