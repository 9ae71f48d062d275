-- callgate_lock_limits_v1: lock the provider limits of queued calls until the transaction ends.
--
-- A declared limit of a key gets its row the first time that the key is used. Without any declared, learned or observed
-- limit this function only looks whether there is one.
-- p_commands  as in reserve_v2.
-- Locks       limits, by id; new ones first, by name. Rows of flow_note that were written before.
-- Returns     the limits of the calls' keys, by id, as they are now, with the corrections of flow_note.
CREATE FUNCTION callgate_lock_limits_v1(
    p_call_ids uuid[], p_generations int[], p_commands text[], p_credentials text[]
) RETURNS flow_limit[]
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    limit_ids bigint[];
    limits flow_limit[];
    notes jsonb;                -- limit id -> tokens that are given back
BEGIN
    IF NOT EXISTS (SELECT 1 FROM flow_rule) AND NOT EXISTS (SELECT 1 FROM flow_limit) THEN
        RETURN '{}';
    END IF;
    INSERT INTO flow_limit (provider, model, credential, source, measure, window_s, amount, is_shared, counts_used, level)
    SELECT DISTINCT ON (1, 2, 3, 5, 6)
           r.provider, CASE WHEN r.is_shared THEN r.model ELSE l.model END, u.credential, 'declared', r.measure,
           r.window_s, r.amount, r.is_shared, r.counts_used, callgate_limit_capacity_v1(r.amount, r.window_s, 0)
      FROM unnest(p_call_ids, p_generations, p_commands, p_credentials)
           AS u(call_id, generation, command, credential)
      JOIN llm_call l ON l.call_id = u.call_id AND l.generation = u.generation AND l.state = 'queued'
      JOIN flow_rule r ON r.provider = l.provider AND l.model LIKE callgate_like_v1(r.model)
                      AND (r.credential = u.credential OR r.credential = '*' AND u.credential <> '')
     WHERE u.command = 'reserve'
       AND NOT EXISTS (SELECT 1 FROM flow_limit x
                        WHERE x.provider = r.provider AND x.credential = u.credential AND x.source = 'declared'
                          AND x.model = CASE WHEN r.is_shared THEN r.model ELSE l.model END
                          AND x.measure = r.measure AND x.window_s = r.window_s)
     ORDER BY 1, 2, 3, 5, 6, r.amount
    ON CONFLICT (provider, model, credential, source, measure, window_s) DO NOTHING;

    SELECT array_agg(DISTINCT x.id) INTO limit_ids
      FROM (SELECT DISTINCT l.provider, l.model, u.credential
              FROM unnest(p_call_ids, p_generations, p_commands, p_credentials)
                   AS u(call_id, generation, command, credential)
              JOIN llm_call l ON l.call_id = u.call_id AND l.generation = u.generation AND l.state = 'queued'
             WHERE u.command = 'reserve') k
     CROSS JOIN LATERAL callgate_limits_of_v1(k.provider, k.model, k.credential) x;
    IF limit_ids IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM 1 FROM flow_limit x WHERE x.id = ANY (limit_ids) ORDER BY x.id FOR UPDATE;
    WITH note AS (DELETE FROM flow_note n WHERE n.limit_id = ANY (limit_ids) RETURNING n.limit_id, n.tokens)
    SELECT coalesce(jsonb_object_agg(s.limit_id, s.tokens), '{}') INTO notes
      FROM (SELECT n.limit_id, sum(n.tokens) AS tokens FROM note n GROUP BY n.limit_id) s;
    SELECT array_agg(callgate_limit_at_v1(x, now()) ORDER BY x.id) INTO limits FROM flow_limit x WHERE x.id = ANY (limit_ids);
    -- A declaration that was published meanwhile may have deleted them.
    limits := coalesce(limits, '{}');
    FOR i IN 1 .. cardinality(limits) LOOP
        IF notes ? limits[i].id::text THEN
            limits[i].level := least(callgate_limit_capacity_v1(limits[i].amount, limits[i].window_s, limits[i].largest),
                                     limits[i].level + (notes ->> limits[i].id::text)::float8);
        END IF;
    END LOOP;
    RETURN limits;
END $$;
