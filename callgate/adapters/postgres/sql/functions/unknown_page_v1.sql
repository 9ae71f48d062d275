-- callgate_unknown_page_v1: list attempts with an unknown bill that was not settled by hand, newest first; as
-- unknown_v1, page by page.
--
-- p_after_at, p_after_id  the last attempt of the page before; null: the first page.
CREATE FUNCTION callgate_unknown_page_v1(
    p_org_id text, p_provider text, p_model text, p_since timestamptz, p_before timestamptz, p_after_at timestamptz,
    p_after_id uuid, p_limit int
) RETURNS TABLE (
    attempt_id uuid, call_id uuid, generation int, attempt int, org_id text, call_type text, provider text, model text,
    credential text, status text, anomalies text[], hold_nano_usd bigint, posted_nano_usd bigint,
    started_at timestamptz, settled_by_hand_at timestamptz, provider_request_id text, error text)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT a.attempt_id, a.call_id, a.generation, a.attempt, a.org_id, a.call_type, a.provider, a.model,
           a.credential, a.status, a.anomalies, a.hold_nano_usd, a.posted_nano_usd,
           a.started_at, a.settled_by_hand_at, a.provider_request_id, a.error_json
      FROM ai_call_log a
     WHERE callgate_bill_unknown_v1(a.status, a.anomalies) AND a.settled_by_hand_at IS NULL
       AND a.posted_nano_usd IS NOT NULL
       AND (p_org_id IS NULL OR a.org_id = p_org_id)
       AND (p_provider IS NULL OR a.provider = p_provider)
       AND (p_model IS NULL OR a.model = p_model)
       AND (p_since IS NULL OR a.started_at >= p_since)
       AND (p_before IS NULL OR a.started_at < p_before)
       AND (p_after_at IS NULL OR a.started_at <= p_after_at AND (a.started_at, a.attempt_id) < (p_after_at, p_after_id))
     ORDER BY a.started_at DESC, a.attempt_id DESC
     LIMIT p_limit;
END $$;
