-- callgate_budget_refusal_v1: a budget's refusal, as `BudgetRefusal.from_json` reads it.
--
-- b           the budget that refuses; null if the organisation has none for the call.
-- p_reserved  what is reserved in it at this moment.
CREATE FUNCTION callgate_budget_refusal_v1(p_reason text, p_org_id text, b budget, p_reserved bigint, p_hold bigint)
RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN json_build_object(
        'code', 'budget_' || p_reason, 'reason', p_reason, 'org_id', p_org_id,
        'scope', coalesce(b.scope, 'org'), 'window', b."window",
        'limit_nano_usd', coalesce(b.limit_nano_usd, 0), 'spent_nano_usd', coalesce(b.spent_nano_usd, 0),
        'reserved_nano_usd', coalesce(p_reserved, 0), 'requested_nano_usd', p_hold);
END $$;
