-- callgate_heard_health_v1: find the attempts whose results can change a breaker.
--
-- These are trials, failures while both breakers are closed, refusals for the rate, and successes that prove more than
-- is known. Most batches only confirm that a provider is healthy. They need no lock,
-- because this function takes none.
-- Returns   the indexes of those attempts; null if there are none.
CREATE FUNCTION callgate_heard_health_v1(p_attempt_ids uuid[], p_healths text[]) RETURNS int[]
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (
        SELECT array_agg(k.ord ORDER BY k.ord)
          FROM unnest(p_attempt_ids, p_healths) WITH ORDINALITY AS k(attempt_id, health, ord)
         CROSS JOIN LATERAL (SELECT * FROM ai_call_log l WHERE l.attempt_id = k.attempt_id LIMIT 1) a
          JOIN breaker x ON x.provider = a.provider AND x.model = a.model AND x.credential = a.credential
                        AND x.org_id = ''
          LEFT JOIN breaker y ON y.provider = a.provider AND y.model = a.model AND y.credential = a.credential
                             AND y.org_id = a.org_id
         WHERE a.attempt_id = ANY (x.trial_ids) OR a.attempt_id = ANY (y.trial_ids)
            OR k.health IN ('failed', 'key_refused') AND NOT x.is_open AND y.is_open IS NOT TRUE
            OR k.health = 'limited'
            OR k.health = 'alive' AND (
               NOT x.is_open AND (x.failed_orgs <> '{}' OR x.proven_at IS NULL OR x.proven_at <= now() - interval '1 s')
               OR NOT y.is_open AND (y.failed_orgs <> '{}' OR y.changed_at <= now() - interval '1 h')));
END $$;
