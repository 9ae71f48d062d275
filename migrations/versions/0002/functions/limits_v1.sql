-- callgate_limits_v1: list the provider limits as they are now, each with how much is free and how many calls wait.
--
-- Returns   free: what may be used at once. waiting: the calls that wait for a key of this limit, by organisation, as
--           JSON.
CREATE FUNCTION callgate_limits_v1() RETURNS TABLE (
    provider text, model text, credential text, source text, measure text, window_s int, amount bigint, is_shared boolean,
    capacity float8, free float8, refill_per_s float8, changed_at timestamptz, granted_at timestamptz, waiting json)
LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    l flow_limit%ROWTYPE;
BEGIN
    FOR l IN
        SELECT x.* FROM flow_limit x
         WHERE callgate_limit_applies_v1(x, x.provider, x.model, x.credential, now()) OR x.is_shared
         ORDER BY x.provider, x.model, x.credential, x.measure, x.window_s, x.source
    LOOP
        l := callgate_limit_at_v1(l, now());
        provider := l.provider; model := l.model; credential := l.credential; source := l.source; measure := l.measure;
        window_s := l.window_s; amount := l.amount; is_shared := l.is_shared; changed_at := l.changed_at;
        granted_at := l.granted_at;
        IF l.measure = 'concurrency' THEN
            capacity := l.amount;
            refill_per_s := 0;
            free := greatest(0, l.amount - callgate_in_flight_v1(l.provider, l.model, l.credential, l.amount));
        ELSE
            capacity := callgate_limit_capacity_v1(l.amount, l.window_s, l.largest);
            refill_per_s := callgate_limit_refill_v1(l);
            free := greatest(0, l.level);
        END IF;
        SELECT coalesce(json_object_agg(w.org_id, w.calls), '{}') INTO waiting
          FROM (SELECT c.org_id, count(*) AS calls
                  FROM breaker b JOIN llm_call c ON c.breaker_id = b.id AND c.state = 'waiting'
                 WHERE callgate_limit_applies_v1(l, b.provider, b.model, b.credential, now()) AND b.org_id = ''
                 GROUP BY c.org_id ORDER BY calls DESC, c.org_id LIMIT 100) w;
        RETURN NEXT;
    END LOOP;
END $$;
