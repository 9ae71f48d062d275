-- callgate_walk_v1: the condition of the index that calls_v2 walks along: the narrowest that fits the filter.
--
-- w.org_id and w.state stand for the organisation and the state of a walk. A walk that has to sort says so by "few":
-- so many calls at most have to be read for it.
-- p_readable  organisations to which the filter is bound; null: all. p_reads_all: the login reads all organisations.
-- Locks       none.
CREATE FUNCTION callgate_walk_v1(
    p_readable text[], p_reads_all boolean, p_state text, p_reason text, p_error_fingerprint text, p_trace_id text,
    p_call_ids uuid[]
) RETURNS text
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    few CONSTANT int := 10000;
    is_stuck CONSTANT boolean := p_state IN ('waiting', 'dead', 'rejected') OR p_reason IS NOT NULL
        OR p_error_fingerprint IS NOT NULL;
    open_calls int := few + 1;
BEGIN
    IF p_call_ids IS NOT NULL THEN
        RETURN 'c.call_id = ANY ($11) /* few */';
    ELSIF p_trace_id IS NOT NULL AND p_reads_all THEN
        RETURN '(c.call_id, c.generation) IN (SELECT a.call_id, a.generation FROM ai_call_log a WHERE a.trace_id = $10'
            ' ORDER BY a.trace_id LIMIT 10000) /* few */';
    ELSIF p_error_fingerprint IS NOT NULL AND p_reads_all THEN
        RETURN 'c.error_fingerprint = $9 AND c.state IN (''waiting'', ''dead'', ''rejected'')';
    ELSIF p_reason IS NOT NULL AND p_readable IS NULL THEN
        RETURN 'coalesce(c.wait_reason, c.end_reason) = coalesce($3, $4, $5)'
            ' AND c.state IN (''waiting'', ''dead'', ''rejected'')';
    ELSIF is_stuck THEN
        RETURN 'c.state = w.state AND c.state IN (''waiting'', ''dead'', ''rejected'')'
            || CASE WHEN p_readable IS NULL THEN '' ELSE ' AND c.org_id = w.org_id' END;
    ELSIF p_state IN ('queued', 'running') THEN
        IF p_readable IS NULL THEN
            open_calls := (SELECT count(*) FROM (
                SELECT 1 FROM llm_call l
                 WHERE l.state IN ('queued', 'running', 'waiting') AND l.state = p_state LIMIT few + 1) x);
        ELSE
            open_calls := (SELECT count(*) FROM (
                SELECT 1 FROM llm_call l
                 WHERE l.state IN ('queued', 'running', 'waiting') AND l.state = p_state
                   AND l.org_id = ANY (p_readable) LIMIT few + 1) x);
        END IF;
    END IF;
    IF open_calls <= few THEN
        RETURN 'c.state IN (''queued'', ''running'', ''waiting'') AND c.state = w.state /* few */'
            || CASE WHEN p_readable IS NULL THEN '' ELSE ' AND c.org_id = w.org_id' END;
    END IF;
    RETURN CASE WHEN p_readable IS NULL THEN 'true' ELSE 'c.org_id = w.org_id' END;
END $$;
