-- callgate_pause_of_v1: why a call is paused: the reason of the oldest pause that covers it; null if none does.
--
-- Rules     `PauseKey.covers` in callgate/domain/pauses.py. An empty name of a pause covers any.
CREATE FUNCTION callgate_pause_of_v1(p_org_id text, p_call_type text, p_provider text, p_model text) RETURNS text
LANGUAGE sql STABLE AS $$
    SELECT p.reason FROM pause p
     WHERE p.org_id IN ('', p_org_id) AND p.call_type IN ('', p_call_type)
       AND p.provider IN ('', p_provider) AND p.model IN ('', p_model)
     ORDER BY p.at, p.id LIMIT 1
$$;
