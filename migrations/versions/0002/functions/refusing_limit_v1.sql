-- callgate_refusing_limit_v1: the name of the limit for which a call must wait; null: it need not.
--
-- A new call does not overtake calls that wait for the same key, or that were released and are not claimed yet; paused
-- ones do not count. A call that was woken for a place of its organisation is new here: else an organisation with such a
-- line would pass all others at the limit. A key of a cautious provider, without a declared or learned limit, begins
-- with 16 attempts under way.
-- p_chosen      the limits of the key, by index. p_refused_by: the one that refuses the call.
-- p_breaker_id  the shared breaker of the key.
-- Locks         nothing. The caller holds the limits; and the breaker, if it counts attempts under way.
CREATE FUNCTION callgate_refusing_limit_v1(
    c llm_call, p_limits flow_limit[], p_chosen int[], p_refused_by int, p_breaker_id bigint
) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    is_known boolean := false;  -- a limit of the key is declared or learned
    in_flight_max int;
BEGIN
    IF p_refused_by IS NOT NULL THEN
        RETURN callgate_limit_name_v1(p_limits[p_refused_by]);
    END IF;
    FOR n IN 1 .. cardinality(p_chosen) LOOP
        is_known := is_known OR p_limits[p_chosen[n]].source <> 'observed';
        IF c.breaker_id IS NULL AND callgate_has_waiters_v1(p_breaker_id) THEN
            RETURN callgate_limit_name_v1(p_limits[p_chosen[n]]);
        END IF;
    END LOOP;
    IF is_known THEN
        RETURN NULL;
    END IF;
    in_flight_max := callgate_in_flight_max_v1(p_breaker_id);
    IF in_flight_max IS NULL THEN
        RETURN NULL;
    END IF;
    IF callgate_in_flight_v1(c.provider, c.model, (SELECT b.credential FROM breaker b WHERE b.id = p_breaker_id),
                             in_flight_max) >= in_flight_max THEN
        RETURN in_flight_max || ' attempts under way of ' || c.provider || '/' || c.model;
    END IF;
    RETURN NULL;
END $$;
