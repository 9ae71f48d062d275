-- callgate_is_refused_again_v1: whether a call may wait though the provider refused its key.
--
-- The first call of an organisation that meets a refused key ends, and its error says so. Other calls were under way
-- meanwhile: they wait, as all calls do once two organisations have met that key.
-- p_refused  the refused keys of this batch: 'provider/model/credential/organisation'.
CREATE FUNCTION callgate_is_refused_again_v1(a ai_call_log, p_refused text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    key_name CONSTANT text := concat_ws('/', a.provider, a.model, a.credential, '');
BEGIN
    RETURN key_name || a.org_id = ANY (p_refused)
        OR (SELECT count(DISTINCT r) > 1 FROM unnest(p_refused) r WHERE starts_with(r, key_name))
        OR EXISTS (
            SELECT 1 FROM breaker x
             WHERE x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
               AND x.org_id IN ('', a.org_id) AND x.is_open);
END $$;
