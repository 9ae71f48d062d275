-- callgate_audit_calls_v1: count the calls that are stored in some pages of llm_call, at one moment.
--
-- A call that is changed between two such statements may be in the pages of both, or of none.
-- p_until   null: to the end.
-- Returns   dead_letters: those of the calls of which no later generation exists.
CREATE FUNCTION callgate_audit_calls_v1(p_from bigint, p_until bigint)
RETURNS TABLE (state text, calls bigint, dead_letters bigint)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    first_at CONSTANT tid := format('(%s,0)', p_from);
    until_at CONSTANT tid := format('(%s,0)', coalesce(p_until, 4294967295));
BEGIN
    RETURN QUERY
    SELECT c.state, count(*), count(*) FILTER (WHERE c.state = 'dead' AND NOT EXISTS (
               SELECT 1 FROM llm_call n WHERE n.call_id = c.call_id AND n.generation > c.generation))
      FROM llm_call c WHERE c.ctid >= first_at AND c.ctid < until_at GROUP BY c.state;
END $$;
