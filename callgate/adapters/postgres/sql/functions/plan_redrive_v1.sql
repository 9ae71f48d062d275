-- callgate_plan_redrive_v1: store a redrive and the calls it concerns, dead or rejected ones without a later generation;
-- and log who did it and why.
--
-- Only the filters that are not null apply. The same id again stores nothing.
-- p_state       dead | rejected.
-- p_call_ids    these calls; ten thousand at most.
-- p_calls_max   if more calls match, the newest ones.
-- p_open_max    so many redrives may be open.
-- p_looked_max  so many calls are looked at for rejected ones: the newest with the reason, or of each organisation.
-- p_left_alone  rejected calls with these reasons are chosen only by their reason or their id.
-- Locks         no existing row.
-- Returns       planned | nothing | too_many.
CREATE FUNCTION callgate_plan_redrive_v1(
    p_id uuid, p_state text, p_org_id text, p_call_type text, p_provider text, p_model text, p_end_reason text,
    p_error_fingerprint text, p_call_ids uuid[], p_since timestamptz, p_until timestamptz, p_selection jsonb,
    p_calls_max int, p_open_max int, p_looked_max int, p_left_alone text[],
    p_operator text, p_reason text
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET enable_sort = off SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    orgs CONSTANT text[] := CASE WHEN p_org_id IS NULL THEN callgate_sum_orgs_v1() ELSE ARRAY[p_org_id] END;
    looked_max CONSTANT int := greatest(p_looked_max / greatest(cardinality(orgs), 1), 1);
BEGIN
    IF cardinality(p_call_ids) > 10000 THEN
        RAISE EXCEPTION 'at most 10000 calls at a time are looked for' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    IF EXISTS (SELECT 1 FROM redrive r WHERE r.id = p_id) THEN
        RETURN 'planned';
    END IF;
    IF (SELECT count(*) FROM redrive r WHERE r.ended_at IS NULL) >= p_open_max THEN
        RETURN 'too_many';
    END IF;
    INSERT INTO redrive (id, selection, planned_by) VALUES (p_id, p_selection, p_operator);
    WITH looked AS MATERIALIZED (
        SELECT c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.state, c.end_reason,
               c.error_fingerprint, c.created_at
          FROM llm_call c
         WHERE p_call_ids IS NOT NULL AND c.call_id = ANY (p_call_ids) AND c.state = p_state
        UNION ALL
        -- Sorting is off, so this order needs ix_llm_call_dead: by another index all dead letters may be read.
        SELECT c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.state, c.end_reason,
               c.error_fingerprint, c.created_at
          FROM unnest(orgs) AS o(org_id)
         CROSS JOIN LATERAL (
               SELECT x.* FROM llm_call x
                WHERE x.state = 'dead' AND x.org_id = o.org_id
                  AND (p_error_fingerprint IS NULL OR x.error_fingerprint = p_error_fingerprint)
                ORDER BY x.org_id, x.error_fingerprint OFFSET 0) c
         WHERE p_call_ids IS NULL AND p_state = 'dead'
        UNION ALL
        SELECT c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.state, c.end_reason,
               c.error_fingerprint, c.created_at
          FROM (
               SELECT x.* FROM llm_call x
                WHERE x.state = 'rejected' AND x.generation > 0 AND x.end_reason = p_end_reason
                  AND x.created_at >= coalesce(p_since, '-infinity') AND x.created_at < coalesce(p_until, 'infinity')
                  AND (p_org_id IS NULL OR x.org_id = p_org_id)
                ORDER BY x.created_at DESC LIMIT p_looked_max) c
         WHERE p_call_ids IS NULL AND p_state = 'rejected' AND p_end_reason IS NOT NULL
        UNION ALL
        SELECT c.call_id, c.generation, c.org_id, c.call_type, c.provider, c.model, c.state, c.end_reason,
               c.error_fingerprint, c.created_at
          FROM unnest(orgs) AS o(org_id)
         CROSS JOIN LATERAL (
               SELECT x.* FROM llm_call x
                WHERE x.generation >= 0 AND x.org_id = o.org_id AND x.created_at >= coalesce(p_since, '-infinity')
                  AND x.created_at < coalesce(p_until, 'infinity')
                ORDER BY x.created_at DESC LIMIT looked_max) c
         WHERE p_call_ids IS NULL AND p_state = 'rejected' AND p_end_reason IS NULL AND c.state = 'rejected'
    ), chosen AS (
        SELECT c.* FROM looked c
         WHERE (p_org_id IS NULL OR c.org_id = p_org_id)
           AND c.created_at >= coalesce(p_since, '-infinity') AND c.created_at < coalesce(p_until, 'infinity')
           AND (p_call_type IS NULL OR c.call_type = p_call_type)
           AND (p_provider IS NULL OR c.provider = p_provider)
           AND (p_model IS NULL OR c.model = p_model)
           AND (p_end_reason IS NULL OR c.end_reason = p_end_reason)
           AND (p_error_fingerprint IS NULL OR c.error_fingerprint = p_error_fingerprint)
           AND (c.state = 'dead' OR p_end_reason IS NOT NULL OR p_call_ids IS NOT NULL
                OR c.end_reason <> ALL (p_left_alone))
           AND NOT EXISTS (SELECT 1 FROM llm_call n WHERE n.call_id = c.call_id AND n.generation > c.generation)
         ORDER BY c.created_at DESC, c.call_id LIMIT p_calls_max
    )
    INSERT INTO redrive_call (redrive_id, number, call_id, generation, org_id, call_type, provider, model, state)
    SELECT p_id, row_number() OVER (ORDER BY c.created_at, c.call_id DESC), c.call_id, c.generation, c.org_id, c.call_type,
           c.provider, c.model, c.state
      FROM chosen c;
    IF NOT FOUND THEN
        DELETE FROM redrive r WHERE r.id = p_id;
        RETURN 'nothing';
    END IF;
    PERFORM callgate_note_redrive_v1(p_id);
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'redrive.plan', p_org_id, 'redrive ' || p_id, jsonb_build_object('calls', r.calls))
       FROM redrive r WHERE r.id = p_id;
    RETURN 'planned';
END $$;
