-- callgate_submit_v1: store submissions, and a call for each unless one answers already.
--
-- A login that is a tenant's may submit for its own organisations only, and every call id must be the one of its organisation
-- and hash: so nobody joins, or learns of, a call of others.
-- Rows are taken one by one, ordered by call (as the caller sorted them), so that all transactions lock calls in one order.
-- Bounded   a thousand rows at a time; ten thousand links that wait to be delivered on one call. Sizes are CHECKs of the tables.
-- Locks     the call, FOR SHARE while a submission joins it: settle either sees the submission or waits for it. A link on an
--           ended call locks its row of untold_call.
-- Returns   per row: outcome (created | joined | replayed | failed | idempotency_mismatch), generation, state.
CREATE FUNCTION callgate_submit_v1(
    p_submission_ids uuid[], p_org_ids text[], p_call_ids uuid[], p_input_hashes bytea[],
    p_call_types text[], p_providers text[], p_models text[], p_input_token_bounds int[],
    p_requests bytea[], p_idempotency_keys text[], p_links text[], p_forces boolean[],
    p_inherits boolean[]
) RETURNS TABLE (ord int, outcome text, generation int, state text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    s submission%ROWTYPE;
    c llm_call%ROWTYPE;
    key_owner uuid;
    key_to_store text;
    own_orgs CONSTANT text[] := callgate_tenant_orgs_v1();
    links_max CONSTANT int := 10000;
BEGIN
    IF cardinality(p_submission_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 submissions at a time are stored' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    FOR row_no IN 1 .. cardinality(p_submission_ids) LOOP
        ord := row_no;
        IF own_orgs IS NOT NULL AND (p_org_ids[ord] = ANY (own_orgs)) IS NOT TRUE THEN
            RAISE EXCEPTION 'login % may not act for organisation %', session_user, p_org_ids[ord]
                USING ERRCODE = 'insufficient_privilege';
        END IF;
        IF p_call_ids[ord] IS DISTINCT FROM callgate_call_id_v1(p_org_ids[ord], p_input_hashes[ord]) THEN
            RAISE EXCEPTION 'call id % is not the one of its organisation and hash', p_call_ids[ord]
                USING ERRCODE = 'data_exception';
        END IF;
        -- A submission that was stored before answers by its call: the client did not hear the first time.
        SELECT * INTO s FROM submission WHERE submission_id = p_submission_ids[ord];
        IF FOUND AND s.call_id <> p_call_ids[ord] THEN
            RAISE EXCEPTION 'submission id % was used before, for another call', s.submission_id
                USING ERRCODE = 'data_exception';
        ELSIF FOUND THEN
            SELECT * INTO STRICT c FROM llm_call l
             WHERE l.call_id = s.call_id AND l.generation = s.generation;
            outcome := CASE
                WHEN c.state = 'queued' AND s.outcome = 'created' THEN 'created'
                WHEN c.state = 'succeeded' THEN 'replayed'
                WHEN c.state = 'dead' THEN 'failed'
                ELSE 'joined' END;
            generation := c.generation;
            state := c.state;
            RETURN NEXT;
            CONTINUE;
        END IF;

        -- The first submission to name an idempotency key owns it; generation 0 until its call is known.
        key_to_store := p_idempotency_keys[ord];
        IF key_to_store IS NOT NULL THEN
            INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, idempotency_key)
            VALUES (p_submission_ids[ord], p_org_ids[ord], p_call_ids[ord], 0, 'created', key_to_store)
            ON CONFLICT (org_id, idempotency_key) DO NOTHING;
            IF NOT FOUND THEN
                SELECT o.call_id INTO key_owner FROM submission o
                 WHERE o.org_id = p_org_ids[ord] AND o.idempotency_key = key_to_store;
                IF key_owner IS DISTINCT FROM p_call_ids[ord] THEN
                    outcome := 'idempotency_mismatch';
                    generation := 0;
                    state := 'rejected';
                    RETURN NEXT;
                    CONTINUE;
                END IF;
                key_to_store := NULL;
            END IF;
        END IF;

        LOOP
            SELECT * INTO c FROM llm_call l WHERE l.call_id = p_call_ids[ord]
             ORDER BY l.generation DESC LIMIT 1 FOR SHARE;
            IF FOUND AND c.input_hash <> p_input_hashes[ord] THEN
                RAISE EXCEPTION 'two requests share the call id %', c.call_id
                    USING ERRCODE = 'data_exception';
            END IF;

            outcome := CASE
                WHEN c.call_id IS NULL THEN 'created'
                WHEN c.state IN ('queued', 'running', 'waiting') THEN 'joined'
                WHEN c.state = 'rejected' OR c.request IS NULL THEN 'created'
                -- A redrive is for what is dead: one whose earlier redrive has succeeded is answered by that.
                WHEN p_forces[ord] AND NOT (p_inherits[ord] AND c.state = 'succeeded') THEN 'created'
                WHEN c.state = 'succeeded' THEN 'replayed'
                ELSE 'failed' END;
            generation := c.generation;
            state := c.state;
            EXIT WHEN outcome <> 'created';

            generation := coalesce(c.generation, 0) + 1;
            state := 'queued';
            INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type,
                                  provider, model, input_token_bound, request)
            VALUES (p_call_ids[ord], generation, p_org_ids[ord], p_input_hashes[ord], 'queued', now(),
                    p_call_types[ord], p_providers[ord], p_models[ord], p_input_token_bounds[ord],
                    p_requests[ord])
            ON CONFLICT DO NOTHING;
            -- Whoever lost the race looks again and joins the winner's call.
            EXIT WHEN FOUND;
        END LOOP;

        IF p_links[ord] IS NOT NULL AND outcome <> 'created' THEN
            PERFORM 1 FROM submission o
              WHERE o.call_id = c.call_id AND o.generation = c.generation
                AND o.link IS NOT NULL AND o.delivered_at IS NULL AND o.given_up_at IS NULL
             OFFSET links_max - 1 LIMIT 1;
            IF FOUND THEN
                RAISE EXCEPTION 'call % has % links that wait to be delivered, and takes no more', c.call_id, links_max
                    USING ERRCODE = 'program_limit_exceeded';
            END IF;
        END IF;
        INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, idempotency_key, link)
        VALUES (p_submission_ids[ord], p_org_ids[ord], p_call_ids[ord], generation, outcome, key_to_store,
                p_links[ord])
        ON CONFLICT (submission_id) DO UPDATE
            SET generation = excluded.generation, outcome = excluded.outcome, link = excluded.link
          WHERE submission.call_id = excluded.call_id;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'submission id % was used before, for another call', p_submission_ids[ord]
                USING ERRCODE = 'data_exception';
        END IF;

        IF outcome = 'created' AND p_inherits[ord] THEN
            INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, link)
            SELECT gen_random_uuid(), o.org_id, o.call_id, callgate_submit_v1.generation, 'inherited', o.link
              FROM submission o
             WHERE o.call_id = c.call_id AND o.generation = c.generation AND o.link IS NOT NULL
             ORDER BY o.created_at LIMIT links_max;
        END IF;
        IF outcome IN ('replayed', 'failed') AND p_links[ord] IS NOT NULL THEN
            PERFORM callgate_tell_later_v1(c.call_id, c.generation, c.org_id, interval '0');
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
