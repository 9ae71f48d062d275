-- callgate_calls_v2: a page of calls by when they were submitted. Only the filters that are not null apply.
--
-- It walks along an index that fits the filter, from the position on, and looks at a bounded number of calls. So a
-- filter that matches hardly anything does not read the whole ledger. If there are several organisations or states to
-- walk along, each has a walk of its own, and the bound is shared out among them.
-- Filters compare an expression (column || ''). With a plain column the planner would use statistics over all
-- organisations, and a client could see from the plan what they say. For a client every walk begins with an organisation.
-- p_reason      the wait reason, or the end reason. p_error_fingerprint: of calls that wait, are dead or are rejected.
-- p_trace_id    only calls with an attempt of this trace; likewise p_tier, p_kind, p_outcome.
-- p_generation  of p_call_ids.
-- p_at, ...     only calls after this position. p_is_newer: in the other direction.
-- p_looked_max  calls to look at.
-- Locks         none.
-- Returns       calls in the direction of the walk. With p_says_end, if it has looked at p_looked_max calls before p_limit
--               are found, a row with is_end says where it stopped: calls behind that were not looked at.
CREATE FUNCTION callgate_calls_v2(
    p_org_id text, p_state text, p_reason text, p_wait_reason text, p_end_reason text, p_call_type text, p_provider text,
    p_model text, p_error_fingerprint text, p_trace_id text, p_call_ids uuid[], p_generation int, p_since timestamptz,
    p_until timestamptz, p_tier text, p_kind text, p_outcome text, p_at timestamptz, p_at_call_id uuid,
    p_at_generation int, p_is_newer boolean, p_looked_max int, p_says_end boolean, p_limit int
) RETURNS TABLE (call_id uuid, generation int, created_at timestamptz, state text, is_end boolean)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off
SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    readable CONSTANT text[] := callgate_readable_orgs_v1(p_org_id);
    walk CONSTANT text := callgate_walk_v1(
        readable, callgate_readable_orgs_v1(NULL) IS NULL, p_state, coalesce(p_reason, p_wait_reason, p_end_reason),
        p_error_fingerprint, p_trace_id, p_call_ids);
    orgs CONSTANT text[] := CASE WHEN walk LIKE '%w.org_id%' THEN readable ELSE ARRAY[NULL]::text[] END;
    states CONSTANT text[] := CASE
        WHEN walk NOT LIKE '%w.state%' THEN ARRAY[NULL]::text[]
        WHEN p_state IS NOT NULL THEN ARRAY[p_state]
        WHEN p_wait_reason IS NOT NULL THEN ARRAY['waiting']
        WHEN p_end_reason IS NOT NULL THEN ARRAY['dead', 'rejected']
        ELSE ARRAY['waiting', 'dead', 'rejected'] END;
    looked_max CONSTANT int := least(
        greatest(p_looked_max / greatest(cardinality(orgs) * cardinality(states), 1), 1), 30000);
    -- What was walked past: a bounded number of calls, in order. Those that are few are found first and sorted then.
    look CONSTANT text := format(
        'SELECT c.call_id, c.generation, c.created_at, c.state, c.org_id, c.wait_reason, c.end_reason, c.call_type,'
        ' c.provider, c.model, c.error_fingerprint FROM llm_call c'
        ' WHERE c.generation > 0 AND %s AND c.created_at >= $13 AND c.created_at < $14'
        ' AND ($18 IS NULL OR c.created_at %2$s= $18 AND (c.created_at, c.call_id, c.generation) %2$s ($18, $19, $20))'
        ' ORDER BY c.created_at%3$s %4$s, c.call_id %4$s, c.generation %4$s LIMIT $21',
        walk, CASE WHEN p_is_newer THEN '>' ELSE '<' END,
        CASE WHEN walk LIKE '%few%' THEN ' + interval ''0''' ELSE '' END,
        CASE WHEN p_is_newer THEN 'ASC' ELSE 'DESC' END);
BEGIN
    IF cardinality(p_call_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 calls at a time are looked for' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN QUERY EXECUTE format($query$
    WITH walks AS (
        SELECT o.org_id, s.state FROM unnest($23::text[]) o(org_id) CROSS JOIN unnest($24::text[]) s(state)
    ), found AS MATERIALIZED (
        SELECT m.* FROM walks w CROSS JOIN LATERAL (
            SELECT y.call_id, y.generation, y.created_at, y.state FROM (%1$s) y
             WHERE ($1::text[] IS NULL OR y.org_id = ANY ($1))
               AND ($2::text IS NULL OR y.state || '' = $2)
               AND ($3::text IS NULL OR coalesce(y.wait_reason, y.end_reason) || '' = $3)
               AND ($4::text IS NULL OR y.wait_reason || '' = $4)
               AND ($5::text IS NULL OR y.end_reason || '' = $5)
               AND ($6::text IS NULL OR y.call_type || '' = $6)
               AND ($7::text IS NULL OR y.provider || '' = $7)
               AND ($8::text IS NULL OR y.model || '' = $8)
               AND ($9::text IS NULL OR y.error_fingerprint || '' = $9 AND y.state IN ('waiting', 'dead', 'rejected'))
               AND ($11::uuid[] IS NULL OR y.call_id = ANY ($11))
               AND ($12::int IS NULL OR y.generation = $12)
               AND (coalesce($10, $15, $16, $17) IS NULL OR EXISTS (
                    SELECT 1 FROM ai_call_log a
                     WHERE a.call_id = y.call_id AND a.generation = y.generation
                       AND a.attempt_id >= callgate_uuid_floor_v1(y.created_at - interval '1 day')
                       AND ($10::text IS NULL OR a.trace_id = $10)
                       AND ($15::text IS NULL OR coalesce(a.service_tier, '') = $15)
                       AND ($16::text IS NULL OR a.kind = $16)
                       AND ($17::text IS NULL OR a.status = $17)
                    OFFSET 0))
             LIMIT $22) m
         ORDER BY m.created_at %2$s, m.call_id %2$s, m.generation %2$s LIMIT $22
    ), stop AS (
        -- Looked for only if it can matter.
        SELECT e.* FROM walks w CROSS JOIN LATERAL (
            SELECT y.call_id, y.generation, y.created_at, y.state FROM (%1$s) y OFFSET $21 - 1 LIMIT 1) e
         WHERE $25 AND ((SELECT count(*) FROM found) < $22 OR (SELECT count(*) FROM walks) > 1)
         ORDER BY e.created_at %2$s, e.call_id %2$s, e.generation %2$s LIMIT 1
    )
    SELECT f.*, false FROM found f
     WHERE NOT EXISTS (SELECT 1 FROM stop e
                        WHERE (f.created_at, f.call_id, f.generation) %3$s (e.created_at, e.call_id, e.generation))
     UNION ALL
    SELECT e.*, true FROM stop e
    $query$, look, CASE WHEN p_is_newer THEN 'ASC' ELSE 'DESC' END, CASE WHEN p_is_newer THEN '>' ELSE '<' END)
    USING readable, p_state, p_reason, p_wait_reason, p_end_reason, p_call_type, p_provider, p_model,
          p_error_fingerprint, p_trace_id, p_call_ids, p_generation, coalesce(p_since, '-infinity'::timestamptz),
          coalesce(p_until, 'infinity'::timestamptz), p_tier, p_kind, p_outcome, p_at, p_at_call_id, p_at_generation,
          looked_max, least(p_limit, 10000), orgs, states, p_says_end;
END $$;
