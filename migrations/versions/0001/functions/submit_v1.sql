-- callgate_submit_v1: store submissions, and a new call for each one that no existing call answers.
--
-- A client's login can execute this without the client library. So it may submit only for its own organisations, and a
-- call id must follow from organisation and hash. Otherwise it could join, and read, a call of another organisation.
-- Rows are taken one by one. The caller has sorted them by call, so that all transactions lock calls in the same order.
-- p_forces    start the next generation even if the call has succeeded or is dead.
-- p_inherits  copy the links of a dead generation to the next one: a redrive.
-- Bounded     a thousand rows at a time, and ten thousand undelivered links of one call. CHECKs bound the sizes.
-- Locks       the call, FOR SHARE while a submission joins it: settle_v1 either sees the submission or waits for it. A
--             link on an ended call locks the call's row of undelivered_call.
-- Returns     per row: outcome (created | joined | replayed | failed | idempotency_mismatch), generation, state.
CREATE FUNCTION callgate_submit_v1(
    p_submission_ids uuid[], p_org_ids text[], p_call_ids uuid[], p_input_hashes bytea[],
    p_call_types text[], p_providers text[], p_models text[], p_input_token_bounds int[],
    p_requests bytea[], p_idempotency_keys text[], p_links text[], p_forces boolean[],
    p_inherits boolean[]
) RETURNS TABLE (ord int, outcome text, generation int, state text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    s submission%ROWTYPE;
    c llm_call%ROWTYPE;         -- the newest generation of the call
    key text;                   -- the idempotency key that the submission owns
    own_key text;               -- see callgate_own_key_v1
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
        SELECT * INTO s FROM submission WHERE submission_id = p_submission_ids[ord];
        IF FOUND THEN
            SELECT x.* INTO outcome, generation, state FROM callgate_known_submission_v1(s, p_call_ids[ord]) x;
            RETURN NEXT;
            CONTINUE;
        END IF;
        key := NULL;
        IF p_idempotency_keys[ord] IS NOT NULL THEN
            own_key := callgate_own_key_v1(
                p_submission_ids[ord], p_org_ids[ord], p_call_ids[ord], p_idempotency_keys[ord]);
            IF own_key = 'mismatch' THEN
                outcome := 'idempotency_mismatch';
                generation := 0;
                state := 'rejected';
                RETURN NEXT;
                CONTINUE;
            END IF;
            key := CASE own_key WHEN 'own' THEN p_idempotency_keys[ord] END;
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
                -- A redrive is for dead calls: if an earlier redrive has succeeded, its result is the answer.
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
            -- If another session has inserted it meanwhile: look again, and join that call.
            EXIT WHEN FOUND;
        END LOOP;

        IF p_links[ord] IS NOT NULL AND outcome <> 'created' THEN
            PERFORM callgate_refuse_too_many_links_v1(c.call_id, c.generation, links_max);
        END IF;
        INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, idempotency_key, link)
        VALUES (p_submission_ids[ord], p_org_ids[ord], p_call_ids[ord], generation, outcome, key, p_links[ord])
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
            PERFORM callgate_schedule_delivery_v1(c.call_id, c.generation, c.org_id, interval '0');
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
