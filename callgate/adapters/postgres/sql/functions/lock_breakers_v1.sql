-- callgate_lock_breakers_v1: lock the breakers of queued calls until the transaction ends.
--
-- If a provider, model and credential of a reserve command has no shared breaker, it gets one. A healthy breaker is not
-- locked, so many claims pass it at the same time. One that counts the attempts under way is.
-- p_commands  as in reserve_v2.
-- Locks       breakers, by name; new ones first. All transactions create and lock them in this order, so they cannot
--             deadlock.
CREATE FUNCTION callgate_lock_breakers_v1(
    p_call_ids uuid[], p_generations int[], p_commands text[], p_credentials text[]
) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO breaker (provider, model, credential, org_id)
    SELECT DISTINCT l.provider, l.model, u.credential, ''
      FROM unnest(p_call_ids, p_generations, p_commands, p_credentials)
           AS u(call_id, generation, command, credential)
      JOIN llm_call l ON l.call_id = u.call_id AND l.generation = u.generation AND l.state = 'queued'
     WHERE u.command = 'reserve'
       AND NOT EXISTS (SELECT 1 FROM breaker x
                        WHERE x.provider = l.provider AND x.model = l.model AND x.credential = u.credential
                          AND x.org_id = '')
     ORDER BY l.provider, l.model, u.credential
    ON CONFLICT (provider, model, credential, org_id) DO NOTHING;
    PERFORM 1 FROM breaker x
      WHERE x.id IN (SELECT y.id FROM unnest(p_call_ids, p_generations, p_credentials)
                                      AS u(call_id, generation, credential)
                       JOIN llm_call l USING (call_id, generation)
                       JOIN breaker y ON y.provider = l.provider AND y.model = l.model
                                     AND y.credential = u.credential AND y.org_id IN ('', l.org_id)
                      WHERE y.is_open OR y.org_id = '' AND (
                            y.proven_at IS NULL OR y.proven_at <= now() - interval '60 s' OR y.in_flight_max IS NOT NULL
                            OR y.grown_at IS NULL AND EXISTS (
                               SELECT 1 FROM flow_catalogue f WHERE y.provider = ANY (f.cautious))))
      ORDER BY x.provider, x.model, x.credential, x.org_id FOR UPDATE;
END $$;
