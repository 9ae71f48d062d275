-- callgate_release_waiting_v1: make calls due that wait for a provider which has room for them again.
--
-- A hint, not an admission: reserve decides again. Calls that were released before and are not claimed yet count.
-- Organisations take turns: the first call of each, then the second of each; of one organisation those with the fewest
-- attempts come first. One that its own breaker keeps waiting is passed over. A call that somebody holds is as good as not
-- there, for nobody can claim it: others must not wait for their turn behind it.
-- Locks     waiting calls: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was released.
CREATE FUNCTION callgate_release_waiting_v1() RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    b breaker%ROWTYPE;
    room int;
    -- By lot: names of models come from callers, and thousands would outlast the time a statement has.
    groups_max CONSTANT int := 100;
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
        SELECT x.* FROM waited_for w JOIN breaker x ON x.id = w.breaker_id ORDER BY random() LIMIT groups_max
    LOOP
        room := callgate_breaker_headroom_v1(b, NULL, '');
        CONTINUE WHEN room = 0;
        room := room - (SELECT count(*) FROM (
            SELECT 1 FROM llm_call l WHERE l.breaker_id = b.id AND l.due_at <= now() LIMIT room
               FOR UPDATE SKIP LOCKED) q);
        CONTINUE WHEN room <= 0;
        BEGIN
        WITH on_their_way AS MATERIALIZED (
            SELECT l.org_id, count(*) AS calls FROM (
                SELECT x.org_id FROM llm_call x
                 WHERE x.breaker_id = b.id AND x.due_at <= now() FOR UPDATE SKIP LOCKED) l
             GROUP BY l.org_id
        ), org AS MATERIALIZED (
            SELECT o.org_id, callgate_breaker_headroom_v1(b, y, o.org_id) - coalesce(r.calls, 0) AS places
              FROM callgate_waiting_orgs_v1(b.id) AS o(org_id)
              LEFT JOIN breaker y ON y.provider = b.provider AND y.model = b.model
                                 AND y.credential = b.credential AND y.org_id = o.org_id
              LEFT JOIN on_their_way r ON r.org_id = o.org_id
        ), candidate AS MATERIALIZED (
            SELECT o.org_id, l.call_id, l.generation, l.attempt, l.created_at
              FROM org o
             CROSS JOIN LATERAL (
                SELECT x.call_id, x.generation, x.attempt, x.created_at FROM llm_call x
                 WHERE x.breaker_id = b.id AND x.org_id = o.org_id AND x.state = 'waiting' AND x.due_at > now()
                 ORDER BY x.attempt, x.created_at
                 -- Twice its share: who has fewer calls than that leaves room to the others.
                 LIMIT least(o.places, 1 + 2 * room / (SELECT count(*) FROM org y WHERE y.places > 0))
                   FOR UPDATE SKIP LOCKED) l
             WHERE o.places > 0
        ), next AS (
            SELECT c.call_id, c.generation
              FROM (SELECT *, row_number() OVER (PARTITION BY org_id ORDER BY attempt, created_at) AS round
                      FROM candidate) c
             ORDER BY c.round, c.org_id <= b.turn_org, c.org_id LIMIT room
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
