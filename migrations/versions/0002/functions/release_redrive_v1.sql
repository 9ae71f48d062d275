-- callgate_release_redrive_v1: give calls of a running redrive their next generation, with the outcome of each.
--
-- A call is released only as the redrive has frozen it: its newest generation is the same, in the same state. While the
-- call is locked nobody else can make a newer one: a submission first locks the newest generation.
-- Rules        callgate/domain/redrive_rules.py: rate, cap on money and bound of open calls are asked again.
-- p_lease      of take_redrive_v1. If it is not the newest one, or the redrive is not running, nothing is changed.
-- p_worst_cases, p_inputs, p_outputs  the prices of now.
-- p_refusals   the code of a refusal: the call is not released. Its submission is null.
-- p_submission_ids ... p_requests  as in submit_v2, one for each number; links are inherited.
-- Locks        the redrive; then the calls that no other session holds. The others stay pending, as do those whose
--              organisation has too many open calls.
-- Returns      the generations that were created; as in submit_v2.
CREATE FUNCTION callgate_release_redrive_v1(
    p_id uuid, p_lease uuid, p_numbers int[], p_worst_cases bigint[], p_inputs int[], p_outputs int[], p_refusals text[],
    p_submission_ids uuid[], p_org_ids text[], p_call_ids uuid[], p_input_hashes bytea[], p_call_types text[],
    p_providers text[], p_models text[], p_input_token_bounds int[], p_requests bytea[], p_priorities smallint[],
    p_step_max int, p_open_max int, p_catch_up_s float8, p_locked_again_s float8, p_busy_again_s float8
) RETURNS TABLE (number int, generation int, state text, lane text)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    r redrive%ROWTYPE;
    k redrive_call%ROWTYPE;
    c llm_call%ROWTYPE;         -- the newest generation of the call
    held uuid[];                -- the calls that are locked for us
    stored record;      -- a row of store_submissions_v1
    room int;
    created int := 0;
    committed bigint;
    is_over_cap boolean := false;
    why text;                   -- the code of a call that is not released
    becomes text;               -- its outcome
BEGIN
    SELECT * INTO r FROM redrive x WHERE x.id = p_id FOR UPDATE;
    IF r.id IS NULL OR r.lease_id IS DISTINCT FROM p_lease OR r.state <> 'running' THEN
        RETURN;
    END IF;
    PERFORM callgate_watch_redrive_v1(p_id);
    SELECT * INTO r FROM redrive x WHERE x.id = p_id;
    room := callgate_redrive_room_v1(r, p_step_max, p_open_max, p_catch_up_s);
    committed := r.open_nano_usd + r.posted_nano_usd;
    held := callgate_lock_calls_v1(
        ARRAY(SELECT x.call_id FROM unnest(p_numbers) WITH ORDINALITY AS n(number, ord)
                JOIN redrive_call x ON x.redrive_id = p_id AND x.number = n.number ORDER BY n.ord),
        ARRAY(SELECT x.generation FROM unnest(p_numbers) WITH ORDINALITY AS n(number, ord)
                JOIN redrive_call x ON x.redrive_id = p_id AND x.number = n.number ORDER BY n.ord));
    FOR n IN 1 .. cardinality(p_numbers) LOOP
        SELECT * INTO k FROM redrive_call x WHERE x.redrive_id = p_id AND x.number = p_numbers[n];
        CONTINUE WHEN k.outcome IS DISTINCT FROM 'pending';
        becomes := NULL;
        IF p_refusals[n] IS NOT NULL THEN
            becomes := 'refused';
            why := left(p_refusals[n], 128);
        ELSIF held[n] IS NULL THEN
            UPDATE redrive_call x SET try_at = now() + make_interval(secs => p_locked_again_s)
             WHERE x.redrive_id = p_id AND x.number = k.number;
            CONTINUE;
        ELSE
            SELECT * INTO c FROM llm_call l WHERE l.call_id = k.call_id ORDER BY l.generation DESC LIMIT 1;
            becomes := 'skipped';
            IF c.generation <> k.generation THEN
                why := 'newer_generation';
            ELSIF c.state <> k.state THEN
                why := 'changed';
            ELSIF p_call_ids[n] IS DISTINCT FROM k.call_id THEN
                becomes := 'refused';
                why := 'identity_differs';
            ELSIF EXISTS (SELECT 1 FROM pause p WHERE p.is_freeze AND p.org_id = k.org_id) THEN
                becomes := 'refused';
                why := 'organisation_frozen';
            ELSE
                becomes := NULL;
            END IF;
        END IF;
        IF becomes IS NOT NULL THEN
            UPDATE redrive_call x SET outcome = becomes, code = why, changed_at = now()
             WHERE x.redrive_id = p_id AND x.number = k.number;
            CONTINUE;
        END IF;
        CONTINUE WHEN room - created <= 0;
        IF r.cap_nano_usd IS NOT NULL AND committed + p_worst_cases[n] > r.cap_nano_usd THEN
            is_over_cap := true;
            EXIT;
        END IF;
        SELECT * INTO stored FROM callgate_store_submissions_v1(
            ARRAY[p_submission_ids[n]], ARRAY[p_org_ids[n]], ARRAY[p_call_ids[n]], ARRAY[p_input_hashes[n]],
            ARRAY[p_call_types[n]], ARRAY[p_providers[n]], ARRAY[p_models[n]], ARRAY[p_input_token_bounds[n]],
            ARRAY[p_requests[n]], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY[true], ARRAY[true],
            ARRAY[p_priorities[n]], ARRAY[NULL::float8], '{}', NULL);
        IF stored.outcome = 'busy' THEN
            UPDATE redrive_call x SET try_at = now() + make_interval(secs => p_busy_again_s)
             WHERE x.redrive_id = p_id AND x.number = k.number;
            CONTINUE;
        END IF;
        UPDATE redrive_call x
           SET outcome = 'released', new_generation = stored.generation, worst_case_nano_usd = p_worst_cases[n],
               input_token_bound = p_inputs[n], output_token_bound = p_outputs[n], changed_at = now()
         WHERE x.redrive_id = p_id AND x.number = k.number;
        created := created + 1;
        committed := committed + p_worst_cases[n];
        number := k.number;
        generation := stored.generation;
        state := stored.state;
        lane := stored.lane;
        RETURN NEXT;
    END LOOP;
    UPDATE redrive x
       SET step_at = now(),
           free_at = CASE WHEN r.rate_per_min IS NULL OR created = 0 THEN x.free_at ELSE
               greatest(coalesce(x.free_at, now()), now() - make_interval(secs => p_catch_up_s))
               + make_interval(secs => created * 60 / r.rate_per_min) END
     WHERE x.id = p_id;
    PERFORM callgate_note_redrive_v1(p_id);
    IF is_over_cap THEN
        -- Calls that are open may cost less than they could, and leave money for this one.
        UPDATE redrive x SET state = 'paused', cause = 'cap'
         WHERE x.id = p_id AND x.released = 0 AND x.state = 'running';
        UPDATE redrive x SET step_at = now() + interval '1 s' WHERE x.id = p_id;
    END IF;
END $$;
