-- callgate_free_budget_waiters_v1: make calls due that wait for money: the oldest first, as many as fit into the
-- headroom.
--
-- This is a hint, not an admission: reserve_v2 decides again. A call that was made due before and is not claimed yet
-- counts as if it held its money. A call that does not fit is skipped. It takes no headroom from younger calls, and is
-- the first candidate the next time.
-- Bounded   for each organisation, to its two hundred oldest waiting calls. All of those may be too large. So for each
--           of their call types, and for up to fifty others, the two hundred calls with the smallest holds are added.
--           Of the calls that fit alone, the two hundred oldest are candidates. All other calls have timers. Clients
--           choose the names of call types, so the number of call types is bounded too.
-- Plans     orders name the organisation, or what the candidates say: by the index of creation, all calls of all
--           organisations would be read.
-- Locks     waiting calls, after the budgets that the caller holds: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was made due.
CREATE FUNCTION callgate_free_budget_waiters_v1(p_org_ids text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    looks CONSTANT int := 200;
    types_max CONSTANT int := 50;
    boundless CONSTANT bigint := 9223372036854775807;
    org text;
    headroom jsonb;             -- scope -> its headroom, less what this function has given to calls
    c record;
    scope text;
    fits boolean;
    has_freed boolean := false;
BEGIN
    FOREACH org IN ARRAY coalesce(p_org_ids, '{}') LOOP
        headroom := '{}';
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
                SELECT l.call_id, l.generation, l.created_at, l.call_type FROM llm_call l
                 WHERE l.org_id = org AND l.requested_hold_nano_usd IS NOT NULL
                 ORDER BY l.created_at LIMIT looks
            ), fitting AS MATERIALIZED (
                SELECT k.call_type, (SELECT min(callgate_headroom_v1(org, s.scope))
                                       FROM unnest(callgate_scopes_v1(k.call_type)) AS s(scope)) AS headroom
                  FROM (SELECT call_type FROM kind WHERE call_type IS NOT NULL
                        UNION SELECT call_type FROM oldest) k
            ), candidate AS (
                SELECT o.call_id, o.generation, o.created_at FROM oldest o
                UNION
                SELECT l.call_id, l.generation, l.created_at
                  FROM fitting f CROSS JOIN LATERAL (
                    SELECT x.call_id, x.generation, x.created_at FROM llm_call x
                     WHERE x.org_id = org AND x.call_type = f.call_type AND x.requested_hold_nano_usd <= f.headroom
                     ORDER BY x.requested_hold_nano_usd LIMIT looks) l
            )
            SELECT l.call_id, l.generation, l.state, l.due_at, l.requested_hold_nano_usd AS hold,
                   callgate_scopes_v1(l.call_type) AS scopes
              FROM candidate k JOIN llm_call l USING (call_id, generation) JOIN fitting f USING (call_type)
             WHERE l.requested_hold_nano_usd <= f.headroom
             ORDER BY k.created_at, k.call_id, k.generation LIMIT looks FOR UPDATE OF l SKIP LOCKED
        LOOP
            fits := true;
            FOREACH scope IN ARRAY c.scopes LOOP
                IF NOT headroom ? scope THEN
                    headroom := headroom || jsonb_build_object(scope, coalesce(callgate_headroom_v1(org, scope), boundless));
                END IF;
                fits := fits AND c.hold <= (headroom ->> scope)::bigint;
            END LOOP;
            CONTINUE WHEN NOT fits;
            FOREACH scope IN ARRAY c.scopes LOOP
                headroom := headroom || jsonb_build_object(scope, (headroom ->> scope)::bigint - c.hold);
            END LOOP;
            IF c.state = 'waiting' AND c.due_at > now() THEN
                BEGIN
                    UPDATE llm_call l SET due_at = now()
                     WHERE l.call_id = c.call_id AND l.generation = c.generation;
                    has_freed := true;
                EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
                    -- The call cannot be updated. The others, and the settlement that asked, go on.
                    RAISE WARNING 'call %.% was not made due: %', c.call_id, c.generation, SQLERRM;
                END;
            END IF;
        END LOOP;
    END LOOP;
    RETURN has_freed;
END $$;
