-- callgate_breakers_v1: list the breakers, each with the number of calls that wait for its provider. A shared breaker
-- counts the calls of all organisations, an organisation's own breaker only that organisation's.
CREATE FUNCTION callgate_breakers_v1() RETURNS TABLE (
    provider text, model text, credential text, org_id text, is_open boolean, reason text, failures int,
    changed_at timestamptz, proven_at timestamptz, probe_at timestamptz, waiting int)
LANGUAGE sql STABLE AS $$
    SELECT b.provider, b.model, b.credential, b.org_id, b.is_open, b.reason, cardinality(b.failed_orgs),
           b.changed_at, b.proven_at, b.probe_at,
           (SELECT count(*) FROM llm_call l
             WHERE l.breaker_id = e.id AND l.state = 'waiting' AND b.org_id IN ('', l.org_id))::int
      FROM breaker b
      LEFT JOIN breaker e ON e.provider = b.provider AND e.model = b.model AND e.credential = b.credential
                         AND e.org_id = ''
     ORDER BY b.provider, b.model, b.credential, b.org_id
$$;
