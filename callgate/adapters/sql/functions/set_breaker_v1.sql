-- callgate_set_breaker_v1: open or close a breaker by hand, and keep who did it and why.
--
-- An opened one lets nothing through until it is closed by hand. A closed one is proven: its calls are released at once.
CREATE FUNCTION callgate_set_breaker_v1(
    p_provider text, p_model text, p_credential text, p_is_open boolean, p_operator text, p_reason text
) RETURNS TABLE (
    provider text, model text, credential text, is_open boolean, reason text, failures int,
    changed_at timestamptz, proven_at timestamptz, probe_at timestamptz, waiting int)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO breaker AS b (provider, model, credential, is_open, reason, changed_at, proven_at)
    VALUES (p_provider, p_model, p_credential, p_is_open, CASE WHEN p_is_open THEN p_reason END,
            clock_timestamp(), CASE WHEN NOT p_is_open THEN clock_timestamp() END)
    ON CONFLICT (provider, model, credential) DO UPDATE
       SET is_open = excluded.is_open, reason = excluded.reason, changed_at = excluded.changed_at,
           failures = CASE WHEN p_is_open THEN b.failures ELSE 0 END,
           proven_at = coalesce(excluded.proven_at, b.proven_at), probe_wait_s = 10, probe_at = NULL,
           trial_ids = '{}';
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, CASE WHEN p_is_open THEN 'breaker.open' ELSE 'breaker.close' END, NULL,
        concat_ws('/', p_provider, p_model, nullif(p_credential, '')), '{}');
    PERFORM callgate_release_waiting_v1();
    RETURN QUERY SELECT * FROM callgate_breakers_v1() x
      WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential;
END $$;
