-- callgate_lock_orgs_v1: let no other session claim calls of these calls' organisations until the transaction ends.
--
-- Budgets do not suffice: calls of two types may have no budget in common.
-- p_call_ids  calls; others than queued ones, and null, do not matter.
-- Locks       the rows of flow_org, by organisation. A row is made where there is none.
CREATE FUNCTION callgate_lock_orgs_v1(p_call_ids uuid[], p_generations int[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    org_ids CONSTANT text[] := ARRAY(
        SELECT DISTINCT l.org_id FROM llm_call l
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations)) AND l.state = 'queued'
         ORDER BY l.org_id);
BEGIN
    INSERT INTO flow_org (org_id)
    SELECT o.org_id FROM unnest(org_ids) AS o(org_id)
     WHERE NOT EXISTS (SELECT 1 FROM flow_org x WHERE x.org_id = o.org_id)
     ORDER BY o.org_id
    ON CONFLICT DO NOTHING;
    PERFORM 1 FROM flow_org x WHERE x.org_id = ANY (org_ids) ORDER BY x.org_id FOR UPDATE;
END $$;
