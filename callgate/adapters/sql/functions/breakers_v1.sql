-- callgate_breakers_v1: the breakers, and how many calls wait for each.
CREATE FUNCTION callgate_breakers_v1() RETURNS TABLE (
    provider text, model text, credential text, is_open boolean, reason text, failures int,
    changed_at timestamptz, proven_at timestamptz, probe_at timestamptz, waiting int)
LANGUAGE sql STABLE AS $$
    SELECT b.provider, b.model, b.credential, b.is_open, b.reason, b.failures, b.changed_at, b.proven_at, b.probe_at,
           (SELECT count(*) FROM llm_call l WHERE l.breaker_id = b.id AND l.state = 'waiting')::int
      FROM breaker b ORDER BY b.provider, b.model, b.credential
$$;
