-- callgate_discard_v1: discard dead letters: they become rejected; and log who did it and why, once for all of them.
--
-- p_error   why, as JSON; see end_v1.
-- Locks     those of end_v1. It adds a row to operator_action.
-- Returns   the calls that were still dead. If there is none, nothing is logged.
CREATE FUNCTION callgate_discard_v1(
    p_call_ids uuid[], p_generations int[], p_error text, p_operator text, p_reason text
) RETURNS TABLE (call_id uuid, generation int)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    call_ids uuid[];
    generations int[];
BEGIN
    SELECT array_agg(e.call_id ORDER BY e.call_id), array_agg(e.generation ORDER BY e.call_id)
      INTO call_ids, generations
      FROM callgate_end_v1(p_call_ids, p_generations, p_error, ARRAY['dead']) e;
    IF call_ids IS NULL THEN
        RETURN;
    END IF;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'dead_letters.discard',
        (SELECT min(c.org_id) FROM unnest(call_ids, generations) AS d(call_id, generation)
           JOIN llm_call c USING (call_id, generation) HAVING count(DISTINCT c.org_id) = 1),
        CASE cardinality(call_ids) WHEN 1 THEN call_ids[1] || '.' || generations[1]
        ELSE cardinality(call_ids) || ' dead letters' END,
        jsonb_build_object('calls', cardinality(call_ids), 'first', call_ids[1] || '.' || generations[1]));
    RETURN QUERY SELECT * FROM unnest(call_ids, generations);
END $$;
