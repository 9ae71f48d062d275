-- callgate_is_refused_again_v1: whether a call may wait although the provider refused its key.
--
-- When an organisation first meets a refused key, its call ends, and the error says why. Its other calls that were
-- under way then wait. Once two organisations have met that key, all calls with it wait.
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
