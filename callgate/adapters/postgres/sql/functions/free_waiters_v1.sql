-- callgate_free_waiters_v1: pull the due_at of calls that wait for headroom forward, oldest first, as many as fit.
--
-- A hint, not an admission: reserve decides again. What was woken before and is not claimed yet counts as if it held
-- already. One that does not fit is passed over: it takes no room from the younger ones behind it, and it is asked first
-- again the next time.
-- Looks at  the two hundred oldest waiting calls of each organisation and, since those may all be too large, at the two
--           hundred that want least, of their call types and of fifty others; of those that fit by themselves at the two
--           hundred oldest. The rest have their timers, and the next time. Call types are names that clients make up, so
--           their number has a bound here.
-- Locks     waiting calls, behind the budgets that the caller holds: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was woken.
CREATE FUNCTION callgate_free_waiters_v1(p_org_ids text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    looks CONSTANT int := 200;
    types_max CONSTANT int := 50;
    boundless CONSTANT bigint := 9223372036854775807;
    org text;
    room jsonb;                 -- scope -> what is left of it, as this function gives it away
    c record;
    scope text;
    fits boolean;
    woken boolean := false;
BEGIN
    FOREACH org IN ARRAY coalesce(p_org_ids, '{}') LOOP
        room := '{}';
        FOR c IN
            WITH RECURSIVE kind (call_type, n) AS (
                (SELECT l.call_type, 1 FROM llm_call l WHERE l.org_id = org AND l.requested_hold_nano_usd IS NOT NULL
                  ORDER BY l.call_type LIMIT 1)
                UNION ALL
                SELECT (SELECT l.call_type FROM llm_call l
                         WHERE l.org_id = org AND l.requested_hold_nano_usd IS NOT NULL AND l.call_type > k.call_type
                         ORDER BY l.call_type LIMIT 1), k.n + 1
                  FROM kind k WHERE k.call_type IS NOT NULL AND k.n < types_max
            ), oldest AS MATERIALIZED (
                SELECT l.call_id, l.generation, l.call_type FROM llm_call l
                 WHERE l.org_id = org AND l.requested_hold_nano_usd IS NOT NULL
                 ORDER BY l.created_at LIMIT looks
            ), fitting AS MATERIALIZED (
                SELECT k.call_type, least(callgate_headroom_v1(org, 'org'),
                                          callgate_headroom_v1(org, 'call_type:' || k.call_type)) AS room
                  FROM (SELECT call_type FROM kind WHERE call_type IS NOT NULL
                        UNION SELECT call_type FROM oldest) k
            ), candidate AS (
                SELECT o.call_id, o.generation FROM oldest o
                UNION
                SELECT l.call_id, l.generation
                  FROM fitting f CROSS JOIN LATERAL (
                    SELECT x.call_id, x.generation FROM llm_call x
                     WHERE x.org_id = org AND x.call_type = f.call_type AND x.requested_hold_nano_usd <= f.room
                     ORDER BY x.requested_hold_nano_usd LIMIT looks) l
            )
            SELECT l.call_id, l.generation, l.state, l.due_at, l.requested_hold_nano_usd AS wanted,
                   ARRAY['org', 'call_type:' || l.call_type] AS scopes
              FROM candidate JOIN llm_call l USING (call_id, generation) JOIN fitting f USING (call_type)
             WHERE l.requested_hold_nano_usd <= f.room
             ORDER BY l.created_at, l.call_id, l.generation LIMIT looks FOR UPDATE OF l SKIP LOCKED
        LOOP
            fits := true;
            FOREACH scope IN ARRAY c.scopes LOOP
                IF NOT room ? scope THEN
                    room := room || jsonb_build_object(scope, coalesce(callgate_headroom_v1(org, scope), boundless));
                END IF;
                fits := fits AND c.wanted <= (room ->> scope)::bigint;
            END LOOP;
            CONTINUE WHEN NOT fits;
            FOREACH scope IN ARRAY c.scopes LOOP
                room := room || jsonb_build_object(scope, (room ->> scope)::bigint - c.wanted);
            END LOOP;
            IF c.state = 'waiting' AND c.due_at > now() THEN
                BEGIN
                    UPDATE llm_call l SET due_at = now()
                     WHERE l.call_id = c.call_id AND l.generation = c.generation;
                    woken := true;
                EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
                    -- It takes no change; that stops neither others nor the settlement that asks.
                    RAISE WARNING 'call %.% was not woken: %', c.call_id, c.generation, SQLERRM;
                END;
            END IF;
        END LOOP;
    END LOOP;
    RETURN woken;
END $$;
