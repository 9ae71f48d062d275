-- callgate_wake_v1: pull the due_at of calls that wait for headroom forward, oldest first, as many as fit.
--
-- A hint, not an admission: reserve decides again. What was woken before and is not claimed yet counts as if it held
-- already. One that does not fit is passed over: it takes no room from the younger ones behind it, and it is asked first
-- again the next time. At most two hundred waiting calls of each organisation are looked at; the rest have their timers.
-- Locks     waiting calls, behind the budgets that the caller holds: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was woken.
CREATE FUNCTION callgate_wake_v1(p_org_ids text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
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
            SELECT l.call_id, l.generation, l.state, l.due_at, l.wanted_nano_usd AS wanted,
                   ARRAY['org', 'call_type:' || l.call_type] AS scopes
              FROM llm_call l
             WHERE l.org_id = org AND l.wanted_nano_usd IS NOT NULL
             ORDER BY l.created_at, l.call_id, l.generation LIMIT 200 FOR UPDATE SKIP LOCKED
        LOOP
            fits := true;
            FOREACH scope IN ARRAY c.scopes LOOP
                IF NOT room ? scope THEN
                    room := room || jsonb_build_object(scope, coalesce(callgate_room_v1(org, scope), boundless));
                END IF;
                fits := fits AND c.wanted <= (room ->> scope)::bigint;
            END LOOP;
            CONTINUE WHEN NOT fits;
            FOREACH scope IN ARRAY c.scopes LOOP
                room := room || jsonb_build_object(scope, (room ->> scope)::bigint - c.wanted);
            END LOOP;
            IF c.state = 'waiting' AND c.due_at > now() THEN
                UPDATE llm_call l SET due_at = now()
                 WHERE l.call_id = c.call_id AND l.generation = c.generation;
                woken := true;
            END IF;
        END LOOP;
    END LOOP;
    RETURN woken;
END $$;
