-- callgate_breakers_v2: list the breakers, each with the number of calls that wait because of it, and what failed.
--
-- A call that waits because of an organisation's own breaker is counted there and not at the shared one. If the shared
-- one is open, all of them are counted there.
CREATE FUNCTION callgate_breakers_v2() RETURNS TABLE (
    provider text, model text, credential text, org_id text, is_open boolean, reason text, failures int,
    changed_at timestamptz, proven_at timestamptz, probe_at timestamptz, waiting int, cause text,
    error_fingerprint text)
LANGUAGE sql STABLE AS $$
    SELECT b.provider, b.model, b.credential, b.org_id, b.is_open, b.reason, cardinality(b.failed_orgs),
           b.changed_at, b.proven_at, b.probe_at,
           (SELECT count(*) FROM llm_call l
              LEFT JOIN breaker o ON o.provider = b.provider AND o.model = b.model AND o.credential = b.credential
                                 AND o.org_id = l.org_id
             WHERE l.breaker_id = e.id AND l.state = 'waiting'
               AND b.org_id = CASE WHEN o.is_open AND NOT e.is_open THEN l.org_id ELSE '' END)::int,
           b.cause, b.error_fingerprint
      FROM breaker b
      LEFT JOIN breaker e ON e.provider = b.provider AND e.model = b.model AND e.credential = b.credential
                         AND e.org_id = ''
     ORDER BY b.provider, b.model, b.credential, b.org_id
$$;
