-- callgate_free_provider_waiters_v1: make calls due that wait for a provider whose breaker and limits have headroom
-- again.
--
-- This is a hint, not an admission: reserve_v2 decides again. Calls that were made due before and are not claimed yet
-- count. First come organisations that took little from the limits recently; without limits, and to probe, they take
-- turns. Within an organisation the class decides, then the age; see `rank_of` in callgate/domain/call_order.py. A call that
-- does not fit into the limits stops those behind it, so that smaller ones do not overtake it. An organisation whose own
-- breaker lets nothing through is skipped. So are paused calls, which keep their place. A call that another session
-- holds does not count: it cannot be claimed, and other calls must not wait for it.
-- Locks     waiting calls: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was made due.
CREATE FUNCTION callgate_free_provider_waiters_v1() RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    b breaker%ROWTYPE;
    headroom int;
    flow record;                -- see callgate_flow_headroom_v1
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
        SELECT * INTO flow FROM callgate_flow_headroom_v1(b);
        CONTINUE WHEN flow.requests < 1;
        BEGIN
        WITH on_their_way AS MATERIALIZED (
            SELECT l.org_id, count(*) AS calls, sum(l.input_token_bound) AS input, sum(l.output_token_bound) AS output
              FROM (
                SELECT x.org_id, x.input_token_bound, x.output_token_bound FROM llm_call x
                 WHERE x.breaker_id = b.id AND x.due_at <= now() FOR UPDATE SKIP LOCKED) l
             GROUP BY l.org_id
        ), org AS MATERIALIZED (
            SELECT o.org_id, callgate_breaker_headroom_v1(b, y, o.org_id) - coalesce(r.calls, 0) AS places,
                   callgate_paused_types_v1(b.id, o.org_id) AS paused_types
              FROM callgate_waiting_orgs_v1(b.id) AS o(org_id)
              LEFT JOIN breaker y ON y.provider = b.provider AND y.model = b.model
                                 AND y.credential = b.credential AND y.org_id = o.org_id
              LEFT JOIN on_their_way r ON r.org_id = o.org_id
        ), candidate AS MATERIALIZED (
            SELECT o.org_id, l.*
              FROM org o
             CROSS JOIN LATERAL (
                SELECT x.call_id, x.generation, x.rank_at, x.input_token_bound AS input,
                       coalesce(x.output_token_bound, 0) AS output
                  FROM llm_call x
                 WHERE x.breaker_id = b.id AND x.org_id = o.org_id AND x.state = 'waiting' AND x.due_at > now()
                   AND x.call_type <> ALL (o.paused_types)
                 ORDER BY x.rank_at
                 -- Twice its share: an organisation with fewer calls leaves the rest to the others.
                 LIMIT least(o.places, 1 + 2 * headroom / (SELECT count(*) FROM org y WHERE y.places > 0))
                   FOR UPDATE SKIP LOCKED) l
             WHERE o.places > 0
        ), turn AS (
            -- What the organisation will have taken before this call: a large one is not put behind for its size.
            SELECT c.*, coalesce(callgate_faded_share_v1(f.share, f.noted_at, f.fades_s), 0)
                        + sum(greatest(1e-9, flow.per_request, c.input * flow.per_input, c.output * flow.per_output,
                                       (c.input + c.output) * flow.per_token))
                          OVER (PARTITION BY c.org_id ORDER BY c.rank_at ROWS UNBOUNDED PRECEDING)
                        - greatest(1e-9, flow.per_request, c.input * flow.per_input, c.output * flow.per_output,
                                   (c.input + c.output) * flow.per_token) AS share
              FROM candidate c LEFT JOIN flow_share f ON f.breaker_id = b.id AND f.org_id = c.org_id
        ), line AS (
            SELECT t.*, row_number() OVER w AS place, sum(t.input) OVER w AS inputs, sum(t.output) OVER w AS outputs
              FROM turn t
            -- An open breaker admits a probe by turn alone.
            WINDOW w AS (ORDER BY CASE WHEN b.is_open THEN 0 ELSE t.share END, t.org_id <= b.turn_org, t.org_id, t.rank_at
                         ROWS UNBOUNDED PRECEDING)
        ), used AS (
            SELECT coalesce(sum(o.calls), 0) AS calls, coalesce(sum(o.input), 0) AS input,
                   coalesce(sum(o.output), 0) AS output
              FROM on_their_way o
        ), next AS (
            SELECT l.call_id, l.generation
              FROM line l CROSS JOIN used u
             WHERE l.place <= headroom AND l.place + u.calls <= flow.requests
               AND (l.inputs + u.input <= flow.input_tokens AND l.outputs + u.output <= flow.output_tokens
                    AND l.inputs + l.outputs + u.input + u.output <= flow.tokens
                    OR l.place = 1 AND (l.input > flow.input_capacity OR l.output > flow.output_capacity
                                        OR l.input + l.output > flow.token_capacity))
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
