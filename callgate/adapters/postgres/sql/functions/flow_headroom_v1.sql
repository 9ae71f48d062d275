-- callgate_flow_headroom_v1: how much the calls that wait for a key may take now from its limits; `Infinity` where none
-- counts.
--
-- This is a hint, not an admission. A limit that was not used for a whole window offers all of it to one large request.
-- b         the shared breaker of the key.
-- Returns   requests, input_tokens, output_tokens, tokens: the least that any limit has left. capacities: for a call that
--           needs more than these, reserve_v2 must look first, because it makes room for it. per_request, per_input,
--           per_output, per_token: which part of a limit one unit is; 0 without a limit.
CREATE FUNCTION callgate_flow_headroom_v1(
    b breaker, OUT requests float8, OUT input_tokens float8, OUT output_tokens float8, OUT tokens float8,
    OUT input_capacity float8, OUT output_capacity float8, OUT token_capacity float8,
    OUT per_request float8, OUT per_input float8, OUT per_output float8, OUT per_token float8
)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    l flow_limit%ROWTYPE;
    is_known boolean := false;
    is_unused boolean;
    free float8;
    capacity float8;
BEGIN
    requests := 'Infinity'; input_tokens := 'Infinity'; output_tokens := 'Infinity'; tokens := 'Infinity';
    input_capacity := 'Infinity'; output_capacity := 'Infinity'; token_capacity := 'Infinity';
    per_request := 0; per_input := 0; per_output := 0; per_token := 0;
    FOR l IN
        SELECT * FROM callgate_limits_of_v1(b.provider, b.model, b.credential)
    LOOP
        CONTINUE WHEN l.source = 'observed' AND b.is_open;
        is_known := is_known OR l.source <> 'observed';
        IF l.measure = 'concurrency' THEN
            per_request := greatest(per_request, 1 / l.amount::float8);
            requests := least(requests, l.amount - callgate_in_flight_v1(l.provider, l.model, l.credential, l.amount));
            CONTINUE;
        END IF;
        l := callgate_limit_at_v1(l, now());
        capacity := callgate_limit_capacity_v1(l.amount, l.window_s, l.largest);
        is_unused := coalesce(l.granted_at <= now() - make_interval(secs => l.window_s + 1), true);
        IF capacity >= l.amount / 2.0 AND NOT is_unused THEN
            capacity := 'Infinity';
        END IF;
        free := l.level + coalesce((SELECT sum(n.tokens) FROM flow_note n WHERE n.limit_id = l.id), 0);
        CASE l.measure
        WHEN 'requests' THEN
            requests := least(requests, CASE WHEN l.amount = 1 AND is_unused THEN 1 ELSE free END);
            per_request := greatest(per_request, 1 / l.amount::float8);
        WHEN 'input_tokens' THEN
            input_tokens := least(input_tokens, free);
            input_capacity := least(input_capacity, capacity);
            per_input := greatest(per_input, 1 / l.amount::float8);
        WHEN 'output_tokens' THEN
            output_tokens := least(output_tokens, free);
            output_capacity := least(output_capacity, capacity);
            per_output := greatest(per_output, 1 / l.amount::float8);
        WHEN 'tokens' THEN
            tokens := least(tokens, free);
            token_capacity := least(token_capacity, capacity);
            per_token := greatest(per_token, 1 / l.amount::float8);
        END CASE;
    END LOOP;
    IF NOT is_known AND b.in_flight_max IS NOT NULL
            AND EXISTS (SELECT 1 FROM flow_catalogue f WHERE b.provider = ANY (f.cautious)) THEN
        requests := least(requests, b.in_flight_max
                          - callgate_in_flight_v1(b.provider, b.model, b.credential, b.in_flight_max));
    END IF;
END $$;
