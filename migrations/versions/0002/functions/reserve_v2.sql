-- callgate_reserve_v2: decide queued calls, one by one in the order given: claim each, or reject, defer or requeue it.
--
-- A claim holds the call's worst-case cost in all its budgets, takes what it needs from all limits of its key, and
-- starts an attempt. Or it does nothing of that.
-- Rules     callgate/domain/pauses.py for pauses, budgets.py for money, slots.py for slots of workers, concurrency.py for
--           places of organisations, breaker.py and limits.py for providers.
-- Slots     calls that run are counted without a lock. So statements that run at the same time can each give the same
--           slot away; the next claims make up for that.
-- Units     money: nano-USD. Durations: seconds from now() of this transaction.
--
-- Each parameter has one element for each row.
-- p_commands         reserve | reject | defer | requeue: the commands of callgate/domain/ledger.py.
-- For reserve:
-- p_holds            the worst-case cost.
-- p_expires_in_s     when the attempt expires, if no answer is recorded before.
-- p_worker_ids       the process and its claim number. The same id is the same claim, and makes one attempt at most.
--                    Empty for the other commands.
-- p_price_sources    where the prices of the hold come from; only stored.
-- p_trace_ids        the trace to which the attempt belongs; only stored.
-- p_waits            if a budget is exhausted: whether the call waits for the next period, unless it is two months old.
--                    Otherwise it is rejected.
-- p_default_limits   the daily limit of an organisation that has no budget. Null: its calls are rejected.
-- p_credentials      the organisation that owns the key to be used. Empty: the provider's own key.
-- p_waits_max_s      how long the call may wait in total for its provider, for a place, for held money, and while it is
--                    paused. A wait for the next period is not counted, and lets the others begin again.
-- p_output_tokens    the most that the attempt may write.
-- p_input_tokens     the bound of its input, if that may be more than the call's: then it becomes the call's.
-- p_repairs_after    the newest attempt when a repair was prepared. Null: the attempt is no repair. It is none either if
--                    there has been another attempt since, or if it is a probe.
-- For the other commands:
-- p_errors           why the call is not claimed, as JSON.
-- p_defer_s          how long a deferred call waits.
-- p_defer_reasons    the wait reason of a deferred call.
--
-- Locks     the calls that no other session holds, the budgets by id, breakers by name, limits by id, then
--           organisations by name, if it is declared how many of their calls may run. All writers keep this order.
-- Returns   per row:
--           outcome      reserved. refused: the call waits now, or has ended (refuse_claim_v2). not_claimed: it is not queued, or this
--                        claim was made before (earlier_claim_v1). locked: another session holds the call, and nothing
--                        was done.
--           state        the call's new state.
--           attempt_id, attempt, queue_ms, kind   the attempt.
--           refusal      the error of a refused call, as JSON. is_budget: whether a budget refused it.
CREATE FUNCTION callgate_reserve_v2(
    p_call_ids uuid[], p_generations int[], p_commands text[], p_holds bigint[], p_expires_in_s float8[],
    p_worker_ids text[], p_price_sources text[], p_trace_ids text[], p_waits boolean[], p_default_limits bigint[],
    p_credentials text[], p_waits_max_s float8[], p_errors text[], p_defer_s float8[], p_defer_reasons text[],
    p_output_tokens int[], p_input_tokens int[], p_repairs_after int[]
) RETURNS TABLE (ord int, outcome text, state text, attempt_id uuid, attempt int, queue_ms int, refusal text,
               is_budget boolean, kind text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    period_wait_max CONSTANT interval := '62 days';
    c llm_call%ROWTYPE;
    locked_ids uuid[];          -- null where another session holds the call
    budgets budget[];           -- locked; ordered by organisation, then id
    reserved bigint[];          -- their reserved_nano_usd, as this batch changes it
    first_of jsonb;             -- organisation -> index of its first budget
    has_pauses boolean;
    paused_for text;            -- why the call is paused; null: it is not
    has_concurrency boolean;    -- it is declared how many calls of organisations may run
    concurrency_error text;     -- as JSON; null: there is a place
    check_of record;            -- see callgate_check_budgets_v1
    admission text;             -- see callgate_breaker_admission_v1; null: no breaker was asked
    asked_breaker bigint;
    trial_of bigint[];          -- breakers
    breaker_reason text;
    limits flow_limit[];        -- locked; ordered by id
    flow record;                -- see callgate_check_limits_v1
    limit_name text;            -- the limit that refuses the call; null: none does
    limit_ids bigint[];
    is_oversized boolean;       -- it needs more than a whole limit
    is_late boolean;            -- its deadline has passed
    has_flow boolean;           -- some limit may apply to these calls
    share_of text[] := '{}';    -- organisations that took from limits,
    share_at bigint[] := '{}';  -- at which key (its shared breaker),
    shares float8[] := '{}';    -- how large a part of a limit,
    share_fades float8[] := '{}';  -- and the longest window of the limits
    slots int;                  -- of the workers; null: no call has to give way
    work_of text[];             -- organisations with work, and per organisation
    running int[];              -- its calls that run,
    queued int[];               -- those that are queued,
    asking int[];               -- and those of them that ask for a slot
    mine int;                   -- the index of the call's organisation there
    gives_way boolean;
    wait_reason text;           -- null: the call is rejected
    due timestamptz;
    ends_at timestamptz;        -- until when the call may wait in total
    i int;
BEGIN
    locked_ids := callgate_lock_calls_v1(p_call_ids, p_generations);
    budgets := callgate_lock_budgets_v1(locked_ids, p_generations, p_default_limits);
    SELECT array_agg(x.reserved_nano_usd ORDER BY x.n),
           jsonb_object_agg(x.org_id, x.n) FILTER (WHERE x.is_first)
      INTO reserved, first_of
      FROM (SELECT y.reserved_nano_usd, y.org_id, y.ordinality AS n,
                   row_number() OVER (PARTITION BY y.org_id ORDER BY y.ordinality) = 1 AS is_first
              FROM unnest(budgets) WITH ORDINALITY y) x;
    PERFORM callgate_lock_breakers_v1(locked_ids, p_generations, p_commands, p_credentials);
    limits := callgate_lock_limits_v1(locked_ids, p_generations, p_commands, p_credentials);
    has_flow := limits <> '{}' OR EXISTS (SELECT 1 FROM flow_catalogue f WHERE f.cautious <> '{}');
    has_pauses := EXISTS (SELECT 1 FROM pause);
    has_concurrency := EXISTS (SELECT 1 FROM flow_concurrency);
    IF has_concurrency THEN
        PERFORM callgate_lock_orgs_v1(locked_ids, p_generations);
    END IF;
    IF 'reserve' = ANY (p_commands) AND callgate_has_rivals_v1() THEN
        slots := callgate_slots_v1();
        IF slots IS NOT NULL THEN
            SELECT array_agg(w.org_id), array_agg(w.running), array_agg(w.queued), array_agg(w.asking)
              INTO work_of, running, queued, asking
              FROM callgate_org_work_v1(callgate_first_queued_v1(locked_ids, p_generations) - interval '5 s') w;
        END IF;
    END IF;

    FOR row_no IN 1 .. cardinality(p_call_ids) LOOP
        ord := row_no;
        state := NULL; attempt_id := NULL; attempt := NULL; queue_ms := NULL; refusal := NULL; kind := NULL;
        is_budget := false;
        SELECT * INTO c FROM llm_call l
         WHERE l.call_id = p_call_ids[ord] AND l.generation = p_generations[ord];
        state := c.state;
        IF locked_ids[ord] IS NULL AND c.state IN ('queued', 'running') THEN
            outcome := 'locked';
            RETURN NEXT;
            CONTINUE;
        END IF;
        outcome := NULL;
        IF c.state IS DISTINCT FROM 'queued' OR c.attempt > 0 THEN
            SELECT x.*, a.kind INTO outcome, attempt_id, attempt, queue_ms, kind
              FROM callgate_earlier_claim_v1(c, p_worker_ids[ord], p_expires_in_s[ord]) x
              LEFT JOIN LATERAL (SELECT l.kind FROM ai_call_log l WHERE l.attempt_id = x.attempt_id LIMIT 1) a ON true;
        END IF;
        IF outcome IS NOT NULL THEN
            RETURN NEXT;
            CONTINUE;
        END IF;

        IF p_commands[ord] = 'reserve' AND p_input_tokens[ord] > c.input_token_bound THEN
            c.input_token_bound := p_input_tokens[ord];
            UPDATE llm_call l SET input_token_bound = c.input_token_bound
             WHERE l.call_id = c.call_id AND l.generation = c.generation;
        END IF;
        admission := NULL;
        asked_breaker := NULL;
        limit_name := NULL;
        limit_ids := '{}';
        is_oversized := false;
        is_late := p_commands[ord] = 'reserve' AND coalesce(c.start_before <= now(), false);
        paused_for := NULL;
        concurrency_error := NULL;
        gives_way := false;
        mine := array_position(work_of, c.org_id);
        IF p_commands[ord] = 'reserve' AND NOT is_late AND has_pauses THEN
            paused_for := callgate_pause_of_v1(c.org_id, c.call_type, c.provider, c.model);
        END IF;
        IF p_commands[ord] = 'reserve' AND NOT is_late AND paused_for IS NULL THEN
            SELECT * INTO check_of FROM callgate_check_budgets_v1(
                budgets, reserved, (first_of ->> c.org_id)::int, c.org_id, callgate_scopes_v1(c.call_type), p_holds[ord]);
            -- Calls that were released for a place or a provider are as many as find room there.
            IF mine IS NOT NULL AND check_of.refusal IS NULL AND NOT c.is_in_line AND c.breaker_id IS NULL THEN
                gives_way := callgate_gives_way_v1(slots, mine, running, queued, asking);
            END IF;
            IF check_of.refusal IS NULL AND NOT gives_way AND has_concurrency THEN
                concurrency_error := callgate_concurrency_refusal_v1(c);
            END IF;
            IF check_of.refusal IS NULL AND NOT gives_way AND concurrency_error IS NULL THEN
                SELECT x.* INTO admission, asked_breaker, trial_of, breaker_reason
                  FROM callgate_breaker_admission_v1(c.provider, c.model, p_credentials[ord], c.org_id) x;
                -- It has waited long enough for its provider, even if it was a probe each time.
                IF admission = 'probe' AND c.wait_until <= now() THEN
                    admission := 'wait';
                END IF;
            END IF;
            IF admission <> 'wait' AND has_flow THEN
                SELECT * INTO flow FROM callgate_check_limits_v1(
                    limits, c.provider, c.model, p_credentials[ord], c.input_token_bound, p_output_tokens[ord],
                    admission = 'probe');
                limits := flow.wanting;
                is_oversized := flow.refused_by IS NOT NULL AND flow.wait_s IS NULL;
                limit_name := callgate_refusing_limit_v1(c, limits, flow.chosen, flow.refused_by, asked_breaker);
            END IF;
        END IF;

        IF mine IS NOT NULL THEN
            queued[mine] := greatest(0, queued[mine] - 1);
            asking[mine] := greatest(0, asking[mine] - 1);
        END IF;

        IF admission IN ('passed', 'on_trial', 'probe') AND limit_name IS NULL THEN
            IF mine IS NOT NULL THEN
                running[mine] := running[mine] + 1;
            END IF;
            outcome := 'reserved';
            state := 'running';
            attempt := c.attempt + 1;
            kind := CASE WHEN admission = 'probe' THEN 'probe' WHEN p_repairs_after[ord] = c.attempt THEN 'repair'
                         WHEN c.attempt = 0 THEN 'first' ELSE 'retry' END;
            queue_ms := greatest(0, extract(epoch FROM now() - c.due_at) * 1000);
            FOREACH i IN ARRAY check_of.chosen LOOP
                reserved[i] := reserved[i] + p_holds[ord];
            END LOOP;
            IF has_flow THEN
                FOREACH i IN ARRAY flow.chosen LOOP
                    limits[i] := callgate_take_limit_v1(limits[i], c.input_token_bound, p_output_tokens[ord]);
                    limit_ids := limit_ids || limits[i].id;
                END LOOP;
                IF flow.chosen <> '{}' THEN
                    share_of := share_of || c.org_id;
                    share_at := share_at || asked_breaker;
                    shares := shares || flow.share;
                    share_fades := share_fades || flow.fades_s;
                END IF;
            END IF;
            attempt_id := callgate_start_attempt_v2(
                c, check_of.budget_ids, p_holds[ord], p_expires_in_s[ord], p_worker_ids[ord], p_price_sources[ord],
                p_trace_ids[ord], p_credentials[ord], queue_ms, kind, p_waits_max_s[ord],
                limit_ids, p_output_tokens[ord]);
            IF admission <> 'passed' THEN
                UPDATE breaker x
                   SET trial_ids = x.trial_ids || callgate_reserve_v2.attempt_id, turn_org = c.org_id
                 WHERE x.id = ANY (trial_of);
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;

        outcome := 'refused';
        wait_reason := NULL;
        due := NULL;
        ends_at := c.wait_until;
        IF p_commands[ord] = 'reserve' AND ends_at IS NULL THEN
            ends_at := now() + make_interval(secs => p_waits_max_s[ord]);
        END IF;
        IF p_commands[ord] <> 'reserve' THEN
            refusal := p_errors[ord];
            CASE p_commands[ord]
            WHEN 'reject' THEN
                NULL;
            WHEN 'defer' THEN
                wait_reason := p_defer_reasons[ord];
                due := now() + make_interval(secs => p_defer_s[ord]);
            WHEN 'requeue' THEN
                wait_reason := 'locked';
                due := now();
            END CASE;
        ELSIF is_late THEN
            refusal := '{"code": "deadline_passed", "message": "it was not sent before its deadline"}';
        ELSIF is_oversized THEN
            refusal := json_build_object('code', 'exceeds_provider_limit', 'message', 'it needs more than ' || limit_name);
        ELSIF gives_way THEN
            refusal := '{"code": "backlog", "message": "calls of other organisations come first"}';
            wait_reason := 'backlog';
            due := now() + interval '1 day';
            ends_at := c.wait_until;
        ELSIF paused_for IS NOT NULL OR concurrency_error IS NOT NULL OR admission IS NOT NULL THEN
            IF paused_for IS NOT NULL THEN
                refusal := json_build_object('code', 'paused', 'message', 'paused by an operator: ' || paused_for);
                wait_reason := 'paused';
            ELSIF concurrency_error IS NOT NULL THEN
                refusal := concurrency_error;
                wait_reason := 'concurrency_limited';
            ELSE
                SELECT x.error, x.wait_reason INTO refusal, wait_reason
                  FROM callgate_provider_refusal_v1(c, asked_breaker, breaker_reason, limit_name) x;
            END IF;
            due := ends_at;
            IF due <= now() THEN
                wait_reason := NULL;
            END IF;
        ELSE
            is_budget := true;
            refusal := callgate_budget_refusal_v1(
                check_of.refusal, c.org_id, budgets[check_of.refused_by], reserved[check_of.refused_by], p_holds[ord]);
            IF check_of.refusal = 'held' AND ends_at > now() THEN
                wait_reason := 'budget_held';
                due := now() + least(greatest((now() - c.created_at) / 4, interval '0.25 s'), interval '30 s');
                due := least(due, ends_at);
            ELSIF check_of.refusal = 'exhausted' AND p_waits[ord] AND c.created_at > now() - period_wait_max THEN
                wait_reason := 'budget_exhausted';
                due := check_of.ends_at;
                ends_at := NULL;
            END IF;
        END IF;
        state := callgate_refuse_claim_v2(
            c, refusal, wait_reason, due, ends_at, p_holds[ord], asked_breaker,
            admission IS NOT NULL, p_commands[ord] IN ('reject', 'defer'),
            p_output_tokens[ord], p_commands[ord] = 'reserve' AND coalesce(p_repairs_after[ord] = c.attempt, false));
        RETURN NEXT;
    END LOOP;

    UPDATE budget x SET reserved_nano_usd = h.reserved
      FROM (SELECT (budgets[n]).id AS id, reserved[n] AS reserved FROM generate_subscripts(budgets, 1) n) h
     WHERE x.id = h.id AND x.reserved_nano_usd <> h.reserved;
    IF limits <> '{}' THEN
        PERFORM callgate_keep_limits_v1(limits);
        PERFORM callgate_note_shares_v1(share_at, share_of, shares, share_fades);
    END IF;
END $$;
