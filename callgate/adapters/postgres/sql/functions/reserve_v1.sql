-- callgate_reserve_v1: claim queued calls and hold their worst-case cost, decided one by one in arrival order.
--
-- Rules     callgate/domain/budgets.py: spent + reserved + hold <= limit in every scope of a call, or nothing is held.
-- Units     money: nano-USD. Leases: seconds, from now() of this transaction.
--           callgate/domain/breaker.py: a call that every budget has room for may still wait for its provider.
-- Locks     the calls that nobody else holds (hold_v1), the budgets by id, then breakers by name: new ones, then all. Every
--           writer keeps this order.
-- Returns   per row: outcome (reserved | refused | not_claimed | locked), the call's state, the attempt, the refusal as JSON,
--           whether a budget refused. An attempt that is not claimed was made by this claim, and a late answer then ended the
--           call: it was never sent. Locked: somebody holds the call, and nothing was done.
CREATE FUNCTION callgate_reserve_v1(
    p_call_ids uuid[], p_generations int[], p_holds bigint[], p_leases_s float8[], p_worker_ids text[],
    p_price_sources text[], p_trace_ids text[], p_waits boolean[], p_default_limits bigint[],
    p_refusals text[], p_put_off_s float8[], p_put_off_reasons text[], p_credentials text[], p_waits_max_s float8[]
) RETURNS TABLE (ord int, outcome text, state text, attempt_id uuid, attempt int, queue_ms int, refusal text,
               is_budget boolean)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    c llm_call%ROWTYPE;
    held_ids uuid[];            -- the calls that are ours until the end; null where one is somebody else's
    org_ids text[];
    scopes text[];
    budget_ids bigint[];
    books budget[];             -- the locked budgets, ordered by organisation, then id
    held bigint[];              -- their reserved_nano_usd, as this transaction changes it
    first_of jsonb;             -- organisation -> index of its first budget in `books`
    chosen int[];               -- indexes of the budgets that apply to the call at hand
    b budget%ROWTYPE;
    i int;
    rank int;                   -- 0 fits, 1 held, 2 exhausted, 3 never fits, 4 no period: its time zone is unknown
    worst int;                  -- the least hopeful rank so far, and the index of its budget
    worst_index int;
    wait_until timestamptz;
    due timestamptz;
    reason text;
    admission text;             -- what the breaker says, if it was asked; see callgate_admit_v1
    breaker_asked bigint;
    trial_of bigint[];          -- breakers
    breaker_reason text;
    why_wait text;              -- llm_call.wait_reason
BEGIN
    held_ids := callgate_hold_v1(p_call_ids, p_generations);

    SELECT array_agg(k.org_id), array_agg(k.scope) INTO org_ids, scopes
      FROM (SELECT DISTINCT l.org_id, s.scope
              FROM llm_call l
             CROSS JOIN LATERAL (VALUES ('org'), ('call_type:' || l.call_type)) AS s(scope)
             WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(held_ids, p_generations))
               AND l.state = 'queued') k;

    -- An organisation nobody set a budget for gets the default one, where the settings allow a default.
    INSERT INTO budget (org_id, scope, "window", timezone, starts_at, ends_at, limit_nano_usd)
    SELECT DISTINCT ON (l.org_id) l.org_id, 'org', 'day', 'UTC', p.starts_at, p.ends_at, u.default_limit
      FROM unnest(held_ids, p_generations, p_default_limits) WITH ORDINALITY
           AS u(call_id, generation, default_limit, ord)
      JOIN llm_call l ON l.call_id = u.call_id AND l.generation = u.generation AND l.state = 'queued'
     CROSS JOIN LATERAL callgate_period_v1('day', 'UTC', now()) p
     WHERE u.default_limit IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM budget x WHERE x.org_id = l.org_id)
     ORDER BY l.org_id, u.ord
    ON CONFLICT (org_id, scope, "window", starts_at) DO NOTHING;

    budget_ids := callgate_roll_budgets_v1(org_ids, scopes);
    PERFORM 1 FROM budget x WHERE x.id = ANY (budget_ids) ORDER BY x.id FOR UPDATE;
    SELECT array_agg(x.row ORDER BY x.n), array_agg((x.row).reserved_nano_usd ORDER BY x.n),
           jsonb_object_agg((x.row).org_id, x.n) FILTER (WHERE x.is_first)
      INTO books, held, first_of
      FROM (SELECT y AS row, row_number() OVER (ORDER BY y.org_id, y.id) AS n,
                   row_number() OVER (PARTITION BY y.org_id ORDER BY y.id) = 1 AS is_first
              FROM budget y WHERE y.id = ANY (budget_ids)) x;

    -- In one order: two batches that make the same ones would wait for each other.
    INSERT INTO breaker (provider, model, credential, org_id)
    SELECT DISTINCT l.provider, l.model, u.credential, ''
      FROM unnest(held_ids, p_generations, p_credentials, p_refusals) AS u(call_id, generation, credential, refusal)
      JOIN llm_call l ON l.call_id = u.call_id AND l.generation = u.generation AND l.state = 'queued'
     WHERE u.refusal IS NULL
       AND NOT EXISTS (SELECT 1 FROM breaker x
                        WHERE x.provider = l.provider AND x.model = l.model AND x.credential = u.credential
                          AND x.org_id = '')
     ORDER BY l.provider, l.model, u.credential
    ON CONFLICT (provider, model, credential, org_id) DO NOTHING;
    PERFORM 1 FROM breaker x
      WHERE x.id IN (SELECT y.id FROM unnest(held_ids, p_generations, p_credentials)
                                      AS u(call_id, generation, credential)
                       JOIN llm_call l USING (call_id, generation)
                       JOIN breaker y ON y.provider = l.provider AND y.model = l.model
                                     AND y.credential = u.credential AND y.org_id IN ('', l.org_id)
                      WHERE y.is_open OR y.org_id = '' AND (
                            y.proven_at IS NULL OR y.proven_at <= now() - interval '60 s'))
      ORDER BY x.provider, x.model, x.credential, x.org_id FOR UPDATE;

    FOR row_no IN 1 .. cardinality(p_call_ids) LOOP
        ord := row_no;
        outcome := 'not_claimed';
        state := NULL; attempt_id := NULL; attempt := NULL; queue_ms := NULL; refusal := NULL;
        is_budget := false;
        SELECT * INTO c FROM llm_call l
         WHERE l.call_id = p_call_ids[ord] AND l.generation = p_generations[ord];
        state := c.state;

        -- What is no longer open, or waits, is not claimed by anybody: that can be said without its lock.
        IF held_ids[ord] IS NULL AND c.state IN ('queued', 'running') THEN
            outcome := 'locked';
            RETURN NEXT;
            CONTINUE;
        END IF;
        IF c.state = 'running' THEN
            -- The same claim again: its first answer was lost on the way. It is still ours, and the lease starts anew,
            -- unless the attempt was taken as expired: then somebody is about to call it lost.
            SELECT a.attempt_id, a.attempt, a.queue_ms INTO attempt_id, attempt, queue_ms
              FROM ai_call_log a
             WHERE c.error IS NULL AND a.attempt_id = c.attempt_id AND a.status = 'dispatched'
               AND a.worker_id = p_worker_ids[ord];
            IF FOUND THEN
                UPDATE llm_call l SET due_at = now() + make_interval(secs => p_leases_s[ord])
                 WHERE l.call_id = c.call_id AND l.generation = c.generation;
                outcome := 'reserved';
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;
        -- A claim makes one attempt: one that did lands late here, and nobody waits for another.
        IF c.state IS DISTINCT FROM 'queued'
           OR c.attempt > 0 AND EXISTS (
                SELECT 1 FROM ai_call_log a
                 WHERE a.call_id = c.call_id AND a.generation = c.generation
                   AND a.worker_id = p_worker_ids[ord]) THEN
            SELECT a.attempt_id, a.attempt INTO attempt_id, attempt
              FROM ai_call_log a
             WHERE a.call_id = c.call_id AND a.generation = c.generation AND a.status = 'dispatched'
               AND a.worker_id = p_worker_ids[ord];
            RETURN NEXT;
            CONTINUE;
        END IF;

        chosen := '{}';
        worst := 0;
        wait_until := NULL;
        i := (first_of ->> c.org_id)::int;
        WHILE i <= cardinality(books) AND (books[i]).org_id = c.org_id LOOP
            b := books[i];
            IF b.scope IN ('org', 'call_type:' || c.call_type) THEN
                chosen := chosen || i;
                rank := CASE
                    WHEN b.ends_at <= now() THEN 4
                    WHEN p_holds[ord] <= b.limit_nano_usd - b.spent_nano_usd - held[i] THEN 0
                    WHEN p_holds[ord] > b.limit_nano_usd THEN 3
                    WHEN p_holds[ord] > b.limit_nano_usd - b.spent_nano_usd THEN 2
                    ELSE 1 END;
                IF rank > worst THEN
                    worst := rank;
                    worst_index := i;
                END IF;
                IF rank = 2 THEN
                    wait_until := greatest(wait_until, b.ends_at);
                END IF;
            END IF;
            i := i + 1;
        END LOOP;

        admission := NULL;
        IF p_refusals[ord] IS NULL AND worst = 0 AND chosen <> '{}' THEN
            SELECT x.admission, x.breaker_id, x.trial_of, x.reason
              INTO admission, breaker_asked, trial_of, breaker_reason
              FROM callgate_admit_v1(c.provider, c.model, p_credentials[ord], c.org_id) x;
            -- Its patience is over, also where it was a probe each time.
            IF admission = 'probe' AND c.wait_until <= now() THEN
                admission := 'wait';
            END IF;
        END IF;
        IF admission IN ('passed', 'on_trial', 'probe') THEN
            outcome := 'reserved';
            state := 'running';
            attempt := c.attempt + 1;
            queue_ms := greatest(0, extract(epoch FROM now() - c.due_at) * 1000);
            FOREACH i IN ARRAY chosen LOOP
                held[i] := held[i] + p_holds[ord];
            END LOOP;
            INSERT INTO ai_call_log AS a (
                call_id, generation, attempt, org_id, input_hash, call_type, provider, model, status,
                hold_nano_usd, budget_ids, price_source, queue_ms, trace_id, worker_id, credential, kind)
            SELECT c.call_id, c.generation, c.attempt + 1, c.org_id, c.input_hash, c.call_type, c.provider,
                   c.model, 'dispatched', p_holds[ord], array_agg((books[x]).id), p_price_sources[ord],
                   greatest(0, extract(epoch FROM now() - c.due_at) * 1000), p_trace_ids[ord],
                   p_worker_ids[ord], p_credentials[ord],
                   CASE admission WHEN 'probe' THEN 'probe' ELSE 'call' END
              FROM unnest(chosen) x
            RETURNING a.attempt_id INTO attempt_id;
            UPDATE llm_call l
               SET state = 'running', attempt = c.attempt + 1, attempt_id = callgate_reserve_v1.attempt_id,
                   due_at = now() + make_interval(secs => p_leases_s[ord]), error = NULL,
                   requested_hold_nano_usd = NULL, sweeps = 0, breaker_id = NULL,
                   wait_until = CASE admission WHEN 'probe'
                       THEN coalesce(l.wait_until, now() + make_interval(secs => p_waits_max_s[ord])) END
             WHERE l.call_id = c.call_id AND l.generation = c.generation;
            IF admission <> 'passed' THEN
                UPDATE breaker x
                   SET trial_ids = x.trial_ids || callgate_reserve_v1.attempt_id, turn_org = c.org_id
                 WHERE x.id = ANY (trial_of);
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;

        outcome := 'refused';
        state := 'rejected';
        due := NULL;
        why_wait := NULL;
        IF p_refusals[ord] IS NOT NULL THEN
            refusal := p_refusals[ord];
            IF p_put_off_s[ord] IS NOT NULL THEN
                state := 'waiting';
                why_wait := p_put_off_reasons[ord];
                due := now() + make_interval(secs => p_put_off_s[ord]);
            END IF;
        ELSIF admission = 'wait' THEN
            wait_until := coalesce(c.wait_until, now() + make_interval(secs => p_waits_max_s[ord]));
            IF wait_until > now() THEN
                state := 'waiting';
                why_wait := 'provider';
                due := wait_until;
            END IF;
            refusal := json_build_object(
                'code', 'provider_unavailable', 'message', c.provider || '/' || c.model || ' ' || breaker_reason);
        ELSE
            is_budget := true;
            b := books[worst_index];
            reason := CASE WHEN chosen = '{}' THEN 'budget_not_configured' WHEN worst = 1 THEN 'held'
                           WHEN worst = 2 THEN 'exhausted' WHEN worst = 3 THEN 'too_small'
                           ELSE 'no_period' END;
            IF reason = 'budget_not_configured' THEN
                b := NULL;
            ELSIF reason = 'held' THEN
                state := 'waiting';
                why_wait := 'budget_held';
                due := now() + least(greatest((now() - c.created_at) / 4, interval '0.25 s'), interval '30 s');
            ELSIF reason = 'exhausted' AND p_waits[ord] THEN
                state := 'waiting';
                why_wait := 'budget_exhausted';
                due := wait_until;
            END IF;
            refusal := json_build_object(
                'code', 'budget_' || reason, 'reason', reason, 'org_id', c.org_id,
                'scope', coalesce(b.scope, 'org'), 'window', b."window",
                'limit_nano_usd', coalesce(b.limit_nano_usd, 0),
                'spent_nano_usd', coalesce(b.spent_nano_usd, 0),
                'reserved_nano_usd', CASE WHEN b.id IS NULL THEN 0 ELSE held[worst_index] END,
                'requested_nano_usd', p_holds[ord]);
        END IF;
        IF state = 'rejected' THEN
            PERFORM callgate_tell_later_v1(c.call_id, c.generation, c.org_id, interval '0');
        END IF;
        -- It was released to be tried, and is not: the next organisation has its turn.
        IF c.breaker_id IS NOT NULL AND admission IS NULL THEN
            UPDATE breaker x SET turn_org = c.org_id
             WHERE x.id = c.breaker_id
               AND (x.is_open OR x.proven_at IS NULL OR x.proven_at <= now() - interval '60 s');
        END IF;
        UPDATE llm_call l
           SET state = callgate_reserve_v1.state, due_at = due, error = callgate_reserve_v1.refusal,
               -- Who was put off waits for its turn, not for headroom: freed money must not wake it.
               requested_hold_nano_usd = CASE WHEN why_wait IN ('budget_held', 'budget_exhausted') THEN p_holds[ord] END,
               wait_reason = why_wait,
               breaker_id = CASE why_wait WHEN 'provider' THEN breaker_asked END,
               wait_until = CASE why_wait WHEN 'provider' THEN due END,
               -- And nobody has looked into it yet; but who puts it off for no time has, and found it locked.
               sweeps = CASE WHEN p_refusals[ord] IS NOT NULL AND p_put_off_s[ord] IS DISTINCT FROM 0 THEN l.sweeps
                             ELSE 0 END
         WHERE l.call_id = c.call_id AND l.generation = c.generation;
        RETURN NEXT;
    END LOOP;

    UPDATE budget x SET reserved_nano_usd = h.reserved
      FROM (SELECT (books[n]).id AS id, held[n] AS reserved FROM generate_subscripts(books, 1) n) h
     WHERE x.id = h.id AND x.reserved_nano_usd <> h.reserved;
END $$;
