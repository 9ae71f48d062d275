-- callgate_set_breaker_v2: open or close a breaker by hand, the shared one or an organisation's, and log the action.
--
-- A breaker that was opened by hand lets nothing through until it is closed by hand. Closing the shared one declares
-- the provider healthy: all organisations' own breakers are closed with it, and the calls that wait are made due at
-- once.
-- p_org_id   empty: the shared breaker.
-- p_seen_at  when the operator saw it changed last. If it has changed since, nothing is done. Null: in any case.
-- Locks      breakers, by name, then waiting calls: SKIP LOCKED.
-- Returns    the breaker, as breakers_v2 does. No row: it has changed since p_seen_at.
CREATE FUNCTION callgate_set_breaker_v2(
    p_provider text, p_model text, p_credential text, p_org_id text, p_is_open boolean,
    p_seen_at timestamptz, p_operator text, p_reason text
) RETURNS TABLE (
    provider text, model text, credential text, org_id text, is_open boolean, reason text, failures int,
    changed_at timestamptz, proven_at timestamptz, probe_at timestamptz, waiting int, cause text,
    error_fingerprint text)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO breaker AS b (provider, model, credential, org_id)
    SELECT p_provider, p_model, p_credential, o FROM unnest(ARRAY['', p_org_id]) o
     WHERE o = p_org_id OR p_is_open GROUP BY o ORDER BY o
    ON CONFLICT (provider, model, credential, org_id) DO NOTHING;
    PERFORM 1 FROM breaker b
      WHERE b.provider = p_provider AND b.model = p_model AND b.credential = p_credential
        AND (b.org_id = p_org_id OR NOT p_is_open AND p_org_id = '')
      ORDER BY b.org_id FOR UPDATE;
    IF p_seen_at <> (SELECT b.changed_at FROM breaker b
                      WHERE b.provider = p_provider AND b.model = p_model AND b.credential = p_credential
                        AND b.org_id = p_org_id) THEN
        RETURN;
    END IF;
    UPDATE breaker b
       SET is_open = p_is_open, reason = CASE WHEN p_is_open THEN p_reason END, cause = NULL,
           error_fingerprint = NULL, changed_at = clock_timestamp(),
           failed_orgs = CASE WHEN p_is_open THEN b.failed_orgs ELSE '{}' END,
           proven_at = CASE WHEN p_is_open THEN b.proven_at ELSE clock_timestamp() END,
           probe_wait_s = 10, probe_at = NULL, trial_ids = '{}'
     WHERE b.provider = p_provider AND b.model = p_model AND b.credential = p_credential
       AND (b.org_id = p_org_id OR NOT p_is_open AND p_org_id = '');
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, CASE WHEN p_is_open THEN 'breaker.open' ELSE 'breaker.close' END,
        nullif(p_org_id, ''), concat_ws('/', p_provider, p_model, nullif(p_credential, '')), '{}');
    PERFORM callgate_free_provider_waiters_v1();
    RETURN QUERY SELECT * FROM callgate_breakers_v2() x
      WHERE x.provider = p_provider AND x.model = p_model AND x.credential = p_credential
        AND x.org_id = p_org_id;
END $$;
