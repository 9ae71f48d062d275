-- callgate_settle_v1: post attempts and move their calls; settling twice changes nothing.
--
-- Money moves in exactly the budgets the hold was made in: reserved falls by the hold the first time, spent changes by the
-- difference to what was posted before. An attempt that is no longer as the caller saw it is left alone. What an operator
-- settled by hand gives way to the truth, but not to another guess.
-- Locks     the calls that nobody else holds (hold_v1), their attempts by id, the budgets by id, then breakers by name.
-- Returns   per row: was it applied (null: somebody holds the call, and nothing was done), the call's state, and of a call that
--           ended just now whether it has links to deliver. Then a row with ord 0, if calls were made due that waited (applied),
--           or breakers were opened or closed (each as JSON).
CREATE FUNCTION callgate_settle_v1(
    p_call_ids uuid[], p_generations int[], p_attempt_ids uuid[], p_expected_statuses text[], p_statuses text[],
    p_posted bigint[], p_next_states text[], p_due_in_s float8[], p_input_tokens int[],
    p_cached_input_tokens int[], p_cache_write_tokens int[], p_output_tokens int[],
    p_reasoning_tokens int[], p_price_sources text[], p_service_tiers text[], p_errors text[],
    p_fingerprints text[], p_healths text[], p_failure_codes text[], p_anomalies text[]
) RETURNS TABLE (ord int, applied boolean, state text, has_links boolean, breakers text[])
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    held_ids uuid[];            -- the calls that are ours until the end; null where one is somebody else's
    a ai_call_log%ROWTYPE;
    c llm_call%ROWTYPE;
    said text[];                -- anomalies
    by_hand timestamptz;        -- when the amount that stays was settled by hand; null: p_posted is posted
    moved_ids bigint[] := '{}';
    moved_reserved bigint[] := '{}';
    moved_spent bigint[] := '{}';
    freed text[];               -- organisations with a budget of which less is used than before
    heard int[] := '{}';        -- the rows that breakers are told of: those applied, and probes
    changes text[];             -- breakers that were opened or closed
    key_name text;              -- of a key that was refused
    refused text[] := '{}';     -- such keys of rows above, each with the organisation
BEGIN
    held_ids := callgate_hold_v1(p_call_ids, p_generations);
    -- Joined, not compared with the array: so each finds its partition at once.
    PERFORM 1 FROM unnest(p_attempt_ids, held_ids) AS k(attempt_id, held_id) JOIN ai_call_log l USING (attempt_id)
      WHERE k.held_id IS NOT NULL ORDER BY l.attempt_id FOR UPDATE OF l;

    FOR row_no IN 1 .. cardinality(p_attempt_ids) LOOP
        ord := row_no;
        has_links := false;
        breakers := '{}';
        SELECT * INTO c FROM llm_call l
         WHERE l.call_id = p_call_ids[ord] AND l.generation = p_generations[ord];
        SELECT * INTO a FROM ai_call_log l
         WHERE l.attempt_id = p_attempt_ids[ord] AND l.call_id = p_call_ids[ord]
           AND l.generation = p_generations[ord];
        state := c.state;
        IF held_ids[ord] IS NULL THEN
            applied := NULL;
            -- Everybody waits for what a probe came to. When it is posted, its breaker has heard it already.
            IF a.status = p_expected_statuses[ord] AND a.kind = 'probe' THEN
                heard := heard || row_no;
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;
        applied := a.status = p_expected_statuses[ord] AND CASE a.status
            WHEN 'dispatched' THEN p_statuses[ord] = 'unknown'
            WHEN 'answered' THEN true
            WHEN 'unknown' THEN a.finished_at > a.posted_at
            ELSE false END;
        IF applied IS NOT TRUE THEN
            applied := false;
            RETURN NEXT;
            CONTINUE;
        END IF;

        said := string_to_array(coalesce(p_anomalies[ord], ''), ',');
        by_hand := CASE WHEN callgate_bill_unknown_v1(p_statuses[ord], said) THEN a.settled_by_hand_at END;
        UPDATE ai_call_log l
           SET status = p_statuses[ord], posted_at = clock_timestamp(), settled_by_hand_at = by_hand,
               posted_nano_usd = CASE WHEN by_hand IS NULL THEN p_posted[ord] ELSE a.posted_nano_usd END,
               input_tokens = p_input_tokens[ord], cached_input_tokens = p_cached_input_tokens[ord],
               cache_write_tokens = p_cache_write_tokens[ord], output_tokens = p_output_tokens[ord],
               reasoning_tokens = p_reasoning_tokens[ord],
               price_source = coalesce(p_price_sources[ord], a.price_source),
               service_tier = p_service_tiers[ord],
               anomalies = said,
               error_json = p_errors[ord],
               -- A late answer of a call that was purged meanwhile: what it cost stays, its text does not.
               reply = CASE WHEN c.request IS NOT NULL THEN l.reply END
         WHERE l.attempt_id = a.attempt_id;
        heard := heard || row_no;
        moved_ids := moved_ids || a.budget_ids;
        moved_reserved := moved_reserved || array_fill(
            CASE WHEN a.posted_nano_usd IS NULL THEN -a.hold_nano_usd ELSE 0 END,
            ARRAY[cardinality(a.budget_ids)]);
        moved_spent := moved_spent || array_fill(
            CASE WHEN by_hand IS NULL THEN p_posted[ord] - coalesce(a.posted_nano_usd, 0) ELSE 0 END,
            ARRAY[cardinality(a.budget_ids)]);

        -- A success ends any call that is still open; anything else moves only the call whose current attempt this is.
        IF c.state IN ('queued', 'running', 'waiting') AND p_statuses[ord] = 'succeeded' THEN
            state := 'succeeded';
        ELSIF c.state = 'running' AND c.attempt_id = a.attempt_id THEN
            state := p_next_states[ord];
            -- The first call of an organisation that meets a refused key ends, and says so. The others were under way,
            -- and wait; so do all once two organisations have met it.
            IF state = 'dead' AND p_healths[ord] = 'key_refused' AND p_posted[ord] = 0 THEN
                key_name := concat_ws('/', a.provider, a.model, a.credential, '');
                IF key_name || a.org_id = ANY (refused)
                   OR (SELECT count(DISTINCT r) > 1 FROM unnest(refused) r WHERE starts_with(r, key_name))
                   OR EXISTS (
                        SELECT 1 FROM breaker x
                         WHERE x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
                           AND x.org_id IN ('', a.org_id) AND x.is_open) THEN
                    state := 'waiting';
                END IF;
                refused := refused || (key_name || a.org_id);
            END IF;
        ELSE
            RETURN NEXT;
            CONTINUE;
        END IF;
        -- The settler tells at once; ten seconds later anybody does.
        IF state IN ('succeeded', 'dead') THEN
            has_links := callgate_tell_later_v1(c.call_id, c.generation, c.org_id, interval '10 s');
        END IF;
        -- Where a late answer overtakes a newer attempt, that attempt may still send until its lease, the call's due_at, has
        -- ended. Of other calls that have ended the due_at is taken at the end.
        UPDATE llm_call l
           SET state = callgate_settle_v1.state,
               attempt_id = CASE WHEN p_statuses[ord] = 'succeeded' THEN a.attempt_id ELSE l.attempt_id END,
               due_at = CASE
                   WHEN callgate_settle_v1.state = 'waiting'
                       THEN now() + make_interval(secs => coalesce(p_due_in_s[ord], 0))
                   WHEN c.state = 'running' AND c.attempt_id <> a.attempt_id
                       THEN greatest(l.due_at, now() + interval '10 s')
                   ELSE now() + interval '10 s' END,
               error = CASE WHEN p_statuses[ord] = 'succeeded' THEN NULL ELSE p_errors[ord] END,
               error_fingerprint = p_fingerprints[ord],
               requested_hold_nano_usd = NULL, breaker_id = NULL,
               wait_reason = CASE callgate_settle_v1.state WHEN 'waiting' THEN 'retry' END
         WHERE l.call_id = c.call_id AND l.generation = c.generation;
        RETURN NEXT;
    END LOOP;

    PERFORM 1 FROM budget x WHERE x.id = ANY (moved_ids) ORDER BY x.id FOR UPDATE;
    WITH moved AS (
        UPDATE budget x SET reserved_nano_usd = x.reserved_nano_usd + m.reserved,
                            spent_nano_usd = x.spent_nano_usd + m.spent
          FROM (SELECT id, sum(reserved)::bigint AS reserved, sum(spent)::bigint AS spent
                  FROM unnest(moved_ids, moved_reserved, moved_spent) AS u(id, reserved, spent)
                 GROUP BY id) m
         WHERE x.id = m.id
        RETURNING x.org_id, m.reserved + m.spent AS change
    )
    SELECT array_agg(DISTINCT org_id) FILTER (WHERE change < 0) INTO freed FROM moved;
    PERFORM callgate_clear_due_at_v1(held_ids, p_generations);
    applied := callgate_free_waiters_v1(freed);
    changes := callgate_note_health_v1(
        ARRAY(SELECT p_attempt_ids[n] FROM unnest(heard) n), ARRAY(SELECT p_healths[n] FROM unnest(heard) n),
        ARRAY(SELECT p_failure_codes[n] FROM unnest(heard) n));
    -- Null: nothing about any breaker has changed.
    IF changes IS NOT NULL THEN
        applied := callgate_release_waiting_v1() OR applied;
    END IF;
    IF applied OR changes <> '{}' THEN
        ord := 0; state := NULL; has_links := false; breakers := coalesce(changes, '{}');
        RETURN NEXT;
    END IF;
END $$;
