-- callgate_paused_types_v1: the call types of an organisation that are paused at a provider, so that their calls do not
-- count as waiting for it. Pauses of all call types are not among them: waiting_orgs_v1 leaves out the organisation.
--
-- p_breaker_id  the shared breaker of the provider, model and credential.
CREATE FUNCTION callgate_paused_types_v1(p_breaker_id bigint, p_org_id text) RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT p.call_type FROM pause p JOIN breaker b ON b.id = p_breaker_id
                  WHERE p.call_type <> '' AND p.org_id IN ('', p_org_id)
                    AND p.provider IN ('', b.provider) AND p.model IN ('', b.model))
$$;
