-- callgate_check_limits_v1: whether an attempt fits into all limits of its key; if not, which one refuses it, and when
-- it would fit.
--
-- Rules     `refusal_of` in callgate/domain/limits.py. A limit on concurrency counts the attempts that are not posted.
-- p_limits  as lock_limits_v1 returns them, and as this batch has changed them.
-- p_is_probe  the attempt is the only one of a key that is blocked, so its observed rate does not count.
-- Locks     nothing. The caller holds the limits, so no other transaction starts an attempt of their keys.
-- Returns   chosen: the limits of the key, by index. wanting: the limits, with room for a large request. refused_by: the
--           limit that refuses it; null if it fits. wait_s: after how long it fits; null: never. share: the largest part
--           of a limit that it takes. fades_s: the longest window of the limits, at least a minute.
CREATE FUNCTION callgate_check_limits_v1(
    p_limits flow_limit[], p_provider text, p_model text, p_credential text, p_input_tokens bigint,
    p_output_tokens bigint, p_is_probe boolean, OUT chosen int[], OUT wanting flow_limit[], OUT refused_by int, OUT wait_s float8,
    OUT share float8, OUT fades_s float8
)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    l flow_limit%ROWTYPE;
    units bigint;
    wait float8;
BEGIN
    chosen := '{}';
    wanting := p_limits;
    wait_s := 0;
    share := 0;
    fades_s := 60;
    FOR i IN 1 .. cardinality(p_limits) LOOP
        l := p_limits[i];
        CONTINUE WHEN NOT callgate_limit_applies_v1(l, p_provider, p_model, p_credential, now());
        CONTINUE WHEN p_is_probe AND l.source = 'observed';
        chosen := chosen || i;
        units := callgate_limit_need_v1(l.measure, p_input_tokens, p_output_tokens);
        share := greatest(share, units / l.amount::float8);
        fades_s := greatest(fades_s, l.window_s);
        IF units > l.amount THEN
            refused_by := i;
            wait_s := NULL;
            RETURN;
        END IF;
        IF l.measure = 'concurrency' THEN
            wait := CASE WHEN callgate_in_flight_v1(l.provider, l.model, l.credential, l.amount) >= l.amount THEN 1 ELSE 0 END;
        ELSE
            IF callgate_limit_capacity_v1(l.amount, l.window_s, l.largest) < least(units, l.amount / 2.0) THEN
                l.largest := units;
                l.largest_at := now();
                IF coalesce(l.granted_at <= now() - make_interval(secs => l.window_s + 1), true) THEN
                    l.level := callgate_limit_capacity_v1(l.amount, l.window_s, l.largest);
                END IF;
            ELSIF l.largest > 0 AND units > callgate_limit_capacity_v1(l.amount, l.window_s, 0) THEN
                l.largest_at := now();
            END IF;
            wanting[i] := l;
            wait := callgate_limit_wait_v1(l, units, now());
        END IF;
        IF wait > wait_s THEN
            refused_by := i;
            wait_s := wait;
        END IF;
    END LOOP;
END $$;
