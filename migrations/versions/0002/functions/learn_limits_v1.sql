-- callgate_learn_limits_v1: keep limits that providers named in their responses.
--
-- A provider that has less left than its bucket lowers the bucket: others use the key too.
-- p_remaining  what is left of the whole limit; null: not known.
-- Bounded      a thousand limits at a time. A worker's login can execute this.
-- Locks        the limits, by id; new ones first, by name.
CREATE FUNCTION callgate_learn_limits_v1(
    p_providers text[], p_models text[], p_credentials text[], p_measures text[], p_windows_s int[], p_amounts bigint[],
    p_remaining bigint[]
) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    l flow_limit%ROWTYPE;
BEGIN
    IF cardinality(p_providers) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 limits at a time are learned' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO flow_limit (provider, model, credential, source, measure, window_s, amount, is_shared, counts_used, level)
    SELECT u.provider, u.model, u.credential, 'learned', u.measure, u.window_s, min(u.amount), false,
           EXISTS (SELECT 1 FROM flow_catalogue f WHERE u.provider = ANY (f.counting_used)), 0
      FROM unnest(p_providers, p_models, p_credentials, p_measures, p_windows_s, p_amounts)
           AS u(provider, model, credential, measure, window_s, amount)
     GROUP BY u.provider, u.model, u.credential, u.measure, u.window_s
     ORDER BY 1, 2, 3, 5, 6
    ON CONFLICT (provider, model, credential, source, measure, window_s) DO NOTHING;
    FOR l IN
        SELECT * FROM flow_limit x
         WHERE x.source = 'learned' AND (x.provider, x.model, x.credential) IN (
               SELECT * FROM unnest(p_providers, p_models, p_credentials))
         ORDER BY x.id FOR UPDATE
    LOOP
        FOR n IN 1 .. cardinality(p_providers) LOOP
            CONTINUE WHEN (l.provider, l.model, l.credential, l.measure, l.window_s)
                          <> (p_providers[n], p_models[n], p_credentials[n], p_measures[n], p_windows_s[n]);
            l := callgate_limit_at_v1(l, now());
            UPDATE flow_limit x
               SET amount = p_amounts[n], changed_at = now(), leveled_at = l.leveled_at, largest = l.largest,
                   largest_at = l.largest_at,
                   level = least(l.level, callgate_limit_capacity_v1(p_amounts[n], l.window_s, l.largest), p_remaining[n])
             WHERE x.id = l.id;
        END LOOP;
    END LOOP;
END $$;
