-- callgate_release_waiting_v1: make calls due that wait for a breaker which has room for them again.
--
-- A hint, not an admission: reserve decides again. Calls that were released before and are not claimed yet count. For a probe
-- calls with the fewest attempts come first, and of those the next organisation's in turn; else the oldest calls do.
-- Locks     waiting calls: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was released.
CREATE FUNCTION callgate_release_waiting_v1() RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    b breaker%ROWTYPE;
    room int;
    fewest int;                 -- attempts
    released boolean := false;
BEGIN
    FOR b IN
        WITH RECURSIVE waited_for (breaker_id) AS (
            (SELECT l.breaker_id FROM llm_call l WHERE l.breaker_id IS NOT NULL ORDER BY l.breaker_id LIMIT 1)
            UNION ALL
            SELECT (SELECT l.breaker_id FROM llm_call l WHERE l.breaker_id > w.breaker_id
                     ORDER BY l.breaker_id LIMIT 1)
              FROM waited_for w WHERE w.breaker_id IS NOT NULL
        )
        SELECT x.* FROM waited_for w JOIN breaker x ON x.id = w.breaker_id
    LOOP
        room := callgate_breaker_room_v1(b);
        CONTINUE WHEN room = 0;
        room := room - (SELECT count(*) FROM (
            SELECT 1 FROM llm_call l WHERE l.breaker_id = b.id AND l.due_at <= now() LIMIT room) q);
        CONTINUE WHEN room <= 0;
        SELECT l.attempt INTO fewest FROM llm_call l
         WHERE b.is_open AND l.breaker_id = b.id AND l.state = 'waiting' AND l.due_at > now()
         ORDER BY l.attempt LIMIT 1;
        BEGIN
        WITH next AS MATERIALIZED (
            SELECT * FROM (
                SELECT l.call_id, l.generation FROM llm_call l
                 WHERE NOT b.is_open AND l.breaker_id = b.id AND l.state = 'waiting' AND l.due_at > now()
                 ORDER BY l.created_at LIMIT room FOR UPDATE SKIP LOCKED) oldest
            UNION ALL
            SELECT * FROM (
                SELECT l.call_id, l.generation FROM llm_call l
                 WHERE b.is_open AND l.breaker_id = b.id AND l.attempt = fewest AND l.org_id > b.probed_org
                   AND l.state = 'waiting' AND l.due_at > now()
                 ORDER BY l.org_id, l.created_at LIMIT 1 FOR UPDATE SKIP LOCKED) in_turn
            UNION ALL
            SELECT * FROM (
                SELECT l.call_id, l.generation FROM llm_call l
                 WHERE b.is_open AND l.breaker_id = b.id AND l.attempt = fewest AND l.org_id <= b.probed_org
                   AND l.state = 'waiting' AND l.due_at > now()
                 ORDER BY l.org_id, l.created_at LIMIT 1 FOR UPDATE SKIP LOCKED) first_again
             LIMIT room
        )
        UPDATE llm_call l SET due_at = now() FROM next
         WHERE l.call_id = next.call_id AND l.generation = next.generation;
        released := released OR FOUND;
        -- A row that takes no change stops neither those of other breakers nor the settlement that asks.
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            RAISE WARNING 'who waits for %/% was not released: %', b.provider, b.model, SQLERRM;
        END;
    END LOOP;
    RETURN released;
END $$;
