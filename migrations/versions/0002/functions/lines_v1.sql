-- callgate_lines_v1: the groups of calls of an organisation that wait for a place, or were woken and do not run yet: by
-- call type, provider and model, which are what pauses name.
--
-- A hundred groups at most, from a random one on: callers choose the names, and there may be many. The hash gives each
-- group the same chance, however the names are spread.
-- Source    one look into the index for each group ("loose index scan"; Postgres wiki).
CREATE FUNCTION callgate_lines_v1(p_org_id text) RETURNS TABLE (call_type text, provider text, model text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    groups_max CONSTANT int := 100;
    starts_at CONSTANT int := floor(random() * 4294967296)::bigint - 2147483648;
    found_before int := 0;
    n int;
BEGIN
    -- From the random place to the end, then from the beginning to the random place.
    FOR half IN 1 .. 2 LOOP
        RETURN QUERY
        WITH RECURSIVE line (hash, call_type, provider, model, n) AS (
            (SELECT hashtext(l.call_type), l.call_type, l.provider, l.model, 1 FROM llm_call l
              WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited') AND l.org_id = p_org_id
                AND hashtext(l.call_type) >= CASE half WHEN 1 THEN starts_at ELSE -2147483648 END
              ORDER BY hashtext(l.call_type), l.call_type, l.provider, l.model LIMIT 1)
            UNION ALL
            SELECT next.*, x.n + 1
              FROM line x CROSS JOIN LATERAL (
                SELECT hashtext(l.call_type), l.call_type, l.provider, l.model FROM llm_call l
                 WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
                   AND l.org_id = p_org_id
                   AND (hashtext(l.call_type), l.call_type, l.provider, l.model) > (x.hash, x.call_type, x.provider, x.model)
                 ORDER BY hashtext(l.call_type), l.call_type, l.provider, l.model LIMIT 1) next
             WHERE x.n < groups_max - found_before
        )
        SELECT x.call_type, x.provider, x.model FROM line x WHERE half = 1 OR x.hash < starts_at;
        GET DIAGNOSTICS n = ROW_COUNT;
        found_before := found_before + n;
        EXIT WHEN found_before >= groups_max;
    END LOOP;
END $$;
