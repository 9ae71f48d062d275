-- callgate_in_flight_max_v1: how many attempts of a key without known limits may be under way; null: any number.
--
-- A new key begins with 16, and so does one that was blocked, or had no success within the last minute. When all of them
-- are under way, a minute has passed, and an attempt has succeeded since, it may have 16 more. A provider that is
-- declared unlimited has no such number.
-- Rules     `Breaker.slowly_started` in callgate/domain/breaker.py.
-- Locks     the breaker, if the number changes. lock_breakers_v1 has locked it then.
CREATE FUNCTION callgate_in_flight_max_v1(p_breaker_id bigint) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    b breaker%ROWTYPE;
BEGIN
    SELECT * INTO b FROM breaker x WHERE x.id = p_breaker_id;
    IF NOT EXISTS (SELECT 1 FROM flow_catalogue f WHERE b.provider = ANY (f.cautious)) THEN
        RETURN NULL;
    END IF;
    IF b.grown_at IS NULL OR (b.proven_at > now() - interval '60 s') IS NOT TRUE
            AND (b.in_flight_max IS NULL OR b.grown_at < now() - interval '60 s') THEN
        b.in_flight_max := 16;
    ELSIF b.grown_at <= now() - interval '60 s'
            AND callgate_in_flight_v1(b.provider, b.model, b.credential, b.in_flight_max) >= b.in_flight_max
            AND (b.proven_at > b.grown_at OR b.grown_at < now() - interval '120 s') THEN
        -- After two minutes they were not all under way recently: the minute begins now.
        IF b.grown_at >= now() - interval '120 s' THEN
            b.in_flight_max := nullif(least(1024, 16 + b.in_flight_max), 1024);
        END IF;
    ELSE
        RETURN b.in_flight_max;
    END IF;
    UPDATE breaker x SET in_flight_max = b.in_flight_max, grown_at = now() WHERE x.id = b.id;
    RETURN b.in_flight_max;
END $$;
