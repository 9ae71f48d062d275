-- callgate_store_submissions_v1: the body of submit_v2 and of release_redrive_v1; see submit_v2 for all that is not here.
--
-- p_own_orgs  only for these organisations; null: for any.
CREATE FUNCTION callgate_store_submissions_v1(
    p_submission_ids uuid[], p_org_ids text[], p_call_ids uuid[], p_input_hashes bytea[],
    p_call_types text[], p_providers text[], p_models text[], p_input_token_bounds int[],
    p_requests bytea[], p_idempotency_keys text[], p_links text[], p_forces boolean[],
    p_inherits boolean[], p_priorities smallint[], p_start_within_s float8[], p_traceparents text[],
    p_own_orgs text[]
) RETURNS TABLE (ord int, outcome text, generation int, state text, lane text, open_calls int, open_calls_max int,
                 traceparent text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    s submission%ROWTYPE;
    c llm_call%ROWTYPE;         -- the newest generation of the call
    key text;                   -- the idempotency key that the submission owns
    own_key text;               -- see callgate_own_key_v1
    org_nos int[];              -- of each row; the next two have a place for each organisation
    org_no int;
    ahead int[];                -- queued calls
    open_now int[];             -- open calls
    open_max CONSTANT int := coalesce((SELECT f.open_calls_max FROM flow_catalogue f), 100000);
    start_before timestamptz;
    is_congested boolean;       -- these two are asked once for the batch
    ahead_max int;
    has_backlog boolean[];
    has_freezes CONSTANT boolean := EXISTS (SELECT 1 FROM pause p WHERE p.is_freeze);
    links_max CONSTANT int := 10000;
BEGIN
    IF cardinality(p_submission_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 submissions at a time are stored' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    org_nos := ARRAY(
        SELECT dense_rank() OVER (ORDER BY o.org_id) FROM unnest(p_org_ids) WITH ORDINALITY AS o(org_id, n) ORDER BY o.n);
    ahead := array_fill(NULL::int, ARRAY[cardinality(p_submission_ids)]);
    open_now := ahead;
    has_backlog := array_fill(NULL::boolean, ARRAY[cardinality(p_submission_ids)]);
    FOR row_no IN 1 .. cardinality(p_submission_ids) LOOP
        ord := row_no;
        lane := NULL;
        open_calls := NULL;
        open_calls_max := NULL;
        traceparent := NULL;
        start_before := now() + make_interval(secs => p_start_within_s[ord]);
        IF p_own_orgs IS NOT NULL AND (p_org_ids[ord] = ANY (p_own_orgs)) IS NOT TRUE THEN
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
            lane := CASE WHEN outcome = 'created' THEN 'call' END;
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF has_freezes THEN
            PERFORM callgate_refuse_frozen_v1(p_org_ids[ord]);
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
            c := callgate_lock_newest_v1(p_call_ids[ord], p_priorities[ord], start_before);
            IF c.call_id IS NOT NULL AND c.input_hash <> p_input_hashes[ord] THEN
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
            traceparent := c.traceparent;
            EXIT WHEN outcome <> 'created';

            org_no := org_nos[ord];
            IF open_now[org_no] IS NULL THEN
                open_now[org_no] := callgate_open_calls_v1(p_org_ids[ord], open_max);
            END IF;
            IF open_now[org_no] >= open_max THEN
                outcome := 'busy';
                generation := 0;
                state := 'rejected';
                open_calls := open_now[org_no];
                open_calls_max := open_max;
                EXIT;
            END IF;
            generation := coalesce(c.generation, 0) + 1;
            IF ahead[org_no] IS NULL THEN
                ahead[org_no] := callgate_queued_v1(p_org_ids[ord], 2000, NULL);
                -- Calls that are on their way into the queue do not count.
                has_backlog[org_no] := EXISTS (
                    SELECT 1 FROM llm_call l
                     WHERE l.org_id = p_org_ids[ord] AND l.wait_reason = 'backlog' AND l.due_at > now());
            END IF;
            IF ahead_max IS NULL THEN
                is_congested := callgate_is_congested_v1(callgate_slots_v1());
                ahead_max := callgate_ahead_max_v1(callgate_slots_v1());
            END IF;
            lane := CASE WHEN p_priorities[ord] = 2 OR NOT has_backlog[org_no] THEN callgate_lane_v1(
                ahead[org_no], p_priorities[ord],
                CASE p_priorities[ord] WHEN 2 THEN callgate_queued_v1(p_org_ids[ord], 64, 2::smallint) END, is_congested,
                ahead_max) END;
            state := CASE WHEN lane IS NULL THEN 'waiting' ELSE 'queued' END;
            traceparent := coalesce(p_traceparents[ord], CASE WHEN p_inherits[ord] THEN c.traceparent END);
            INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type,
                                  provider, model, input_token_bound, request, wait_reason, priority, rank_at, start_before,
                                  lane, traceparent)
            VALUES (p_call_ids[ord], generation, p_org_ids[ord], p_input_hashes[ord], state,
                    -- In the backlog it has no time of its own: the calls before it make room for it.
                    CASE WHEN lane IS NULL THEN least(now() + interval '1 day', start_before) ELSE now() END,
                    p_call_types[ord], p_providers[ord], p_models[ord], p_input_token_bounds[ord],
                    p_requests[ord], CASE WHEN lane IS NULL THEN 'backlog' END, p_priorities[ord],
                    now() - p_priorities[ord] * interval '6 h', start_before,
                    nullif(lane, 'call'), callgate_store_submissions_v1.traceparent)
            ON CONFLICT DO NOTHING;
            -- If another session has inserted it meanwhile: look again, and join that call.
            IF FOUND THEN
                open_now[org_no] := open_now[org_no] + 1;
                ahead[org_no] := ahead[org_no] + (lane IS NOT NULL)::int;
                has_backlog[org_no] := has_backlog[org_no] OR lane IS NULL;
                EXIT;
            END IF;
            lane := NULL;
        END LOOP;
        IF outcome = 'busy' THEN
            -- The key is free again.
            DELETE FROM submission o WHERE key IS NOT NULL AND o.submission_id = p_submission_ids[ord];
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF outcome = 'joined' AND callgate_raise_call_v1(c, p_priorities[ord], start_before) THEN
            lane := 'express';
        END IF;

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
            SELECT gen_random_uuid(), o.org_id, o.call_id, callgate_store_submissions_v1.generation, 'inherited', o.link
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
