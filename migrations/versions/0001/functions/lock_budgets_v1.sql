-- callgate_lock_budgets_v1: lock the current budgets of queued calls until the transaction ends.
--
-- An organisation without a budget gets a daily one first, if its call has a default limit. Budgets whose period has
-- ended are rolled over.
-- Locks     the budgets, by id.
-- Returns   the budgets of the calls' scopes, ordered by organisation, then by id.
CREATE FUNCTION callgate_lock_budgets_v1(p_call_ids uuid[], p_generations int[], p_default_limits bigint[])
RETURNS budget[]
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    org_ids text[];
    scopes text[];
    budget_ids bigint[];
    budgets budget[];
BEGIN
    INSERT INTO budget (org_id, scope, "window", timezone, starts_at, ends_at, limit_nano_usd)
    SELECT DISTINCT ON (l.org_id) l.org_id, 'org', 'day', 'UTC', p.starts_at, p.ends_at, u.default_limit
      FROM unnest(p_call_ids, p_generations, p_default_limits) WITH ORDINALITY
           AS u(call_id, generation, default_limit, ord)
      JOIN llm_call l ON l.call_id = u.call_id AND l.generation = u.generation AND l.state = 'queued'
     CROSS JOIN LATERAL callgate_period_v1('day', 'UTC', now()) p
     WHERE u.default_limit IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM budget x WHERE x.org_id = l.org_id)
     ORDER BY l.org_id, u.ord
    ON CONFLICT (org_id, scope, "window", starts_at) DO NOTHING;

    SELECT array_agg(k.org_id), array_agg(k.scope) INTO org_ids, scopes
      FROM (SELECT DISTINCT l.org_id, s.scope
              FROM llm_call l CROSS JOIN LATERAL unnest(callgate_scopes_v1(l.call_type)) AS s(scope)
             WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations))
               AND l.state = 'queued') k;
    budget_ids := callgate_roll_budgets_v1(org_ids, scopes);
    PERFORM 1 FROM budget x WHERE x.id = ANY (budget_ids) ORDER BY x.id FOR UPDATE;
    SELECT array_agg(x ORDER BY x.org_id, x.id) INTO budgets FROM budget x WHERE x.id = ANY (budget_ids);
    RETURN budgets;
END $$;
