-- callgate_pauses_v1: list the pauses and freezes, oldest first, each with the number of calls that it covers and that
-- wait because they are paused.
CREATE FUNCTION callgate_pauses_v1() RETURNS TABLE (
    provider text, model text, call_type text, org_id text, is_freeze boolean, operator text, reason text,
    at timestamptz, waiting int)
LANGUAGE sql STABLE AS $$
    SELECT p.provider, p.model, p.call_type, p.org_id, p.is_freeze, p.operator, p.reason, p.at,
           (SELECT count(*) FROM llm_call l
             WHERE l.wait_reason = 'paused' AND p.org_id IN ('', l.org_id) AND p.call_type IN ('', l.call_type)
               AND p.provider IN ('', l.provider) AND p.model IN ('', l.model))::int
      FROM pause p
     ORDER BY p.at, p.id
$$;
