-- callgate_free_provider_waiters_v1: make calls due that wait for a provider whose breaker has headroom again.
--
-- This is a hint, not an admission: reserve_v1 decides again. Calls that were made due before and are not claimed yet
-- count. Organisations take turns: first one call of each, then a second call of each. Within an organisation the calls
-- with the fewest attempts come first. An organisation whose own breaker lets nothing through is skipped. A call that
-- another session holds does not count: it cannot be claimed, and other calls must not wait for it.
-- Locks     waiting calls: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was made due.
CREATE FUNCTION callgate_free_provider_waiters_v1() RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    b breaker%ROWTYPE;
    headroom int;
    -- Chosen at random: callers choose the names of models, and with thousands the statement would time out.
    groups_max CONSTANT int := 100;
    has_freed boolean := false;
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
        headroom := callgate_breaker_headroom_v1(b, NULL, '');
        CONTINUE WHEN headroom = 0;
        headroom := headroom - (SELECT count(*) FROM (
            SELECT 1 FROM llm_call l WHERE l.breaker_id = b.id AND l.due_at <= now() LIMIT headroom
               FOR UPDATE SKIP LOCKED) q);
        CONTINUE WHEN headroom <= 0;
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
                 -- Twice its share: an organisation with fewer calls leaves the rest to the others.
                 LIMIT least(o.places, 1 + 2 * headroom / (SELECT count(*) FROM org y WHERE y.places > 0))
                   FOR UPDATE SKIP LOCKED) l
             WHERE o.places > 0
        ), next AS (
            SELECT c.call_id, c.generation
              FROM (SELECT *, row_number() OVER (PARTITION BY org_id ORDER BY attempt, created_at) AS round
                      FROM candidate) c
             ORDER BY c.round, c.org_id <= b.turn_org, c.org_id LIMIT headroom
        )
        UPDATE llm_call l SET due_at = now() FROM next
         WHERE l.call_id = next.call_id AND l.generation = next.generation;
        has_freed := has_freed OR FOUND;
        -- If a row cannot be updated, the other breakers and the settlement that asked go on.
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            RAISE WARNING 'calls that wait for %/% were not made due: %', b.provider, b.model, SQLERRM;
        END;
    END LOOP;
    RETURN has_freed;
END $$;
