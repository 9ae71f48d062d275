-- callgate_cause_v1: what exactly failed, if callgate wrote the message of a failure itself; else null.
--
-- Rules     `cause_of` in callgate/domain/causes.py.
-- p_error   a failure as JSON.
CREATE FUNCTION callgate_cause_v1(p_error text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_error IS JSON OBJECT AND p_error::json ->> 'code' IN (
        'connect_timeout', 'connection_failed', 'connection_lost', 'dns_failed', 'not_sent', 'proxy_failed', 'timeout',
        'tls_failed', 'endpoint_refused', 'missing_credentials') THEN left(p_error::json ->> 'message', 500) END
$$;
