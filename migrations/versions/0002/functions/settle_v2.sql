-- callgate_settle_v2: post attempts and move their calls. Settling twice changes nothing.
--
-- Money moves in exactly the budgets in which the hold was made. The first time reserved falls by the hold; each time
-- spent changes by the difference to what was posted before. An attempt whose status is not the expected one is left
-- alone. A real cost replaces what an operator settled by hand; another estimate does not.
-- Provider limits are not locked: what an answer did not use is noted, and the next claim counts it.
-- p_due_in_s      when a waiting call is due again; after a refusal for the rate: how long it may wait for its provider.
-- p_blocked_for_s  how long the provider asked to be left alone, if it refused the attempt for its rate.
-- Locks     the calls that no other session holds, their attempts by id, the budgets by id, then breakers by name,
--           and waiting calls: SKIP LOCKED.
-- Returns   per row: applied: whether it was settled now (null: another session holds the call, and nothing was done);
--           state: the call's state; has_ended: whether this attempt ended the call just now; has_links: whether it
--           then has links to deliver. Then a row with ord 0, if waiting calls were made due (applied), or breakers were opened or closed (breakers, each as
--           JSON).
CREATE FUNCTION callgate_settle_v2(
    p_call_ids uuid[], p_generations int[], p_attempt_ids uuid[], p_expected_statuses text[], p_statuses text[],
    p_posted bigint[], p_next_states text[], p_due_in_s float8[], p_input_tokens int[],
    p_cached_input_tokens int[], p_cache_write_tokens int[], p_output_tokens int[],
    p_reasoning_tokens int[], p_cache_write_1h_tokens int[], p_price_sources text[], p_service_tiers text[], p_errors text[],
    p_fingerprints text[], p_healths text[], p_failure_codes text[], p_anomalies text[],
    p_blocked_for_s float8[]
) RETURNS TABLE (ord int, applied boolean, state text, has_ended boolean, has_links boolean, breakers text[])
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    locked_ids uuid[];          -- null where another session holds the call
    a ai_call_log%ROWTYPE;
    c llm_call%ROWTYPE;
    bill_anomalies text[];
    by_hand timestamptz;        -- when the amount that stays was settled by hand; null: p_posted is posted
    moved_ids bigint[] := '{}';
    moved_reserved bigint[] := '{}';
    moved_spent bigint[] := '{}';
    heard int[] := '{}';        -- the rows that concern breakers: those applied, and probes
    orgs text[];                -- of the calls
    changes text[];             -- breakers that were opened or closed
    refused text[] := '{}';     -- refused keys of rows above; see callgate_is_refused_again_v1
BEGIN
    locked_ids := callgate_lock_calls_v1(p_call_ids, p_generations);
    PERFORM callgate_lock_attempts_v1(ARRAY(
        SELECT k.attempt_id FROM unnest(p_attempt_ids, locked_ids) AS k(attempt_id, locked_id)
         WHERE k.locked_id IS NOT NULL));

    FOR row_no IN 1 .. cardinality(p_attempt_ids) LOOP
        ord := row_no;
        has_ended := false;
        has_links := false;
        breakers := '{}';
        SELECT * INTO c FROM llm_call l
         WHERE l.call_id = p_call_ids[ord] AND l.generation = p_generations[ord];
        SELECT * INTO a FROM ai_call_log l
         WHERE l.attempt_id = p_attempt_ids[ord] AND l.call_id = p_call_ids[ord]
           AND l.generation = p_generations[ord];
        state := c.state;
        IF locked_ids[ord] IS NULL THEN
            applied := NULL;
            -- All calls wait for the result of a probe, so its breaker is told before the probe is posted.
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

        bill_anomalies := string_to_array(coalesce(p_anomalies[ord], ''), ',');
        by_hand := CASE WHEN callgate_bill_unknown_v1(p_statuses[ord], bill_anomalies) THEN a.settled_by_hand_at END;
        UPDATE ai_call_log l
           SET status = p_statuses[ord], posted_at = clock_timestamp(), settled_by_hand_at = by_hand,
               posted_nano_usd = CASE WHEN by_hand IS NULL THEN p_posted[ord] ELSE a.posted_nano_usd END,
               input_tokens = p_input_tokens[ord], cached_input_tokens = p_cached_input_tokens[ord],
               cache_write_tokens = p_cache_write_tokens[ord], output_tokens = p_output_tokens[ord],
               reasoning_tokens = p_reasoning_tokens[ord],
               cache_write_1h_tokens = p_cache_write_1h_tokens[ord],
               price_source = coalesce(p_price_sources[ord], a.price_source),
               service_tier = p_service_tiers[ord],
               anomalies = bill_anomalies,
               error_json = p_errors[ord],
               health = p_healths[ord],
               -- The late answer of a call that was purged meanwhile: its cost stays, its text does not.
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

        -- A success ends any call that is still open. Other results move only the call whose current attempt this is.
        IF c.state IN ('queued', 'running', 'waiting') AND p_statuses[ord] = 'succeeded' THEN
            state := 'succeeded';
        ELSIF c.state = 'running' AND c.attempt_id = a.attempt_id THEN
            state := p_next_states[ord];
            IF state = 'dead' AND p_healths[ord] = 'key_refused' AND p_posted[ord] = 0 THEN
                IF callgate_is_refused_again_v1(a, refused) THEN
                    state := 'waiting';
                END IF;
                refused := refused || concat_ws('/', a.provider, a.model, a.credential, a.org_id);
            END IF;
        ELSE
            RETURN NEXT;
            CONTINUE;
        END IF;
        has_ended := state IN ('succeeded', 'dead');
        has_links := callgate_move_call_v1(
            c.call_id, c.generation, c.org_id, a.attempt_id, c.state = 'running' AND c.attempt_id <> a.attempt_id,
            state, p_due_in_s[ord], p_errors[ord], p_fingerprints[ord]);
        IF p_healths[ord] = 'limited' AND state = 'waiting' THEN
            PERFORM callgate_wait_for_key_v1(c, a, p_due_in_s[ord]);
        ELSIF a.kind <> 'probe' AND c.wait_until IS NOT NULL THEN
            UPDATE llm_call l SET wait_until = NULL WHERE l.call_id = c.call_id AND l.generation = c.generation;
        END IF;
        RETURN NEXT;
    END LOOP;

    applied := callgate_free_budget_waiters_v1(
        callgate_move_money_v1(moved_ids, moved_reserved, moved_spent, false));
    PERFORM callgate_clear_due_at_v1(locked_ids, p_generations);
    changes := callgate_note_health_v2(
        ARRAY(SELECT p_attempt_ids[n] FROM unnest(heard) n), ARRAY(SELECT p_healths[n] FROM unnest(heard) n),
        ARRAY(SELECT p_failure_codes[n] FROM unnest(heard) n),
        ARRAY(SELECT p_fingerprints[n] FROM unnest(heard) n), ARRAY(SELECT p_blocked_for_s[n] FROM unnest(heard) n));
    PERFORM callgate_note_used_v1(p_attempt_ids, heard);
    -- Null: no breaker has changed.
    IF changes IS NOT NULL OR callgate_has_freed_slot_v1(p_attempt_ids, heard) THEN
        applied := callgate_free_provider_waiters_v1() OR applied;
    END IF;
    orgs := ARRAY(SELECT DISTINCT l.org_id FROM llm_call l
                   WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(locked_ids, p_generations)));
    applied := callgate_free_concurrency_waiters_v1(orgs) OR applied;
    applied := callgate_release_backlog_v1(orgs) OR applied;
    IF applied OR changes <> '{}' THEN
        ord := 0; state := NULL; has_ended := false; has_links := false; breakers := coalesce(changes, '{}');
        RETURN NEXT;
    END IF;
END $$;
