-- callgate_money_waiters_v1: the calls of an organisation that wait for money, oldest first.
CREATE FUNCTION callgate_money_waiters_v1(p_org_id text, p_limit int)
RETURNS TABLE (call_type text, hold_nano_usd bigint)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_sort = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT l.call_type, l.requested_hold_nano_usd FROM llm_call l
     WHERE l.org_id = p_org_id AND l.requested_hold_nano_usd IS NOT NULL
     ORDER BY l.created_at LIMIT p_limit
$$;
