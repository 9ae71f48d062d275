-- callgate_budget_states_v1: budget periods with what their scopes posted lately, what waits for them, and the periods
-- before: `BudgetState` in callgate/domain/budget_states.py.
--
-- p_ids          budget periods; the result has their order.
-- p_quarters     lately: since the begin of the present quarter hour and of p_quarters - 1 before it.
-- p_periods      so many periods before are read; oldest first in the arrays.
-- p_counted_max  at most so many calls that wait for money are looked at for each budget.
-- Returns        short_calls, short_nano_usd: the calls whose hold is more than the budget has left, and their holds.
--                is_more: whether more calls wait than were looked at.
CREATE FUNCTION callgate_budget_states_v1(p_ids bigint[], p_quarters int, p_periods int, p_counted_max int)
RETURNS TABLE (
    id bigint, org_id text, scope text, "window" text, timezone text, starts_at timestamptz, ends_at timestamptz,
    limit_nano_usd bigint, reserved_nano_usd bigint, spent_nano_usd bigint, at timestamptz, lately_nano_usd bigint,
    short_calls int, short_nano_usd bigint, is_more boolean, past_starts timestamptz[], past_limits bigint[],
    past_spent bigint[])
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    since CONSTANT timestamptz := callgate_quarter_v1(now()) - (p_quarters - 1) * interval '15 minutes';
BEGIN
    RETURN QUERY
    WITH meant AS MATERIALIZED (
        SELECT b.*, i.ord, nullif(substr(b.scope, 11), '') AS call_type,
               CASE WHEN b.ends_at > now() THEN b.limit_nano_usd - b.spent_nano_usd - b.reserved_nano_usd
                    ELSE b.limit_nano_usd END AS left_nano_usd
          FROM unnest(p_ids) WITH ORDINALITY AS i(id, ord) JOIN budget b ON b.id = i.id
    ), delta AS MATERIALIZED (
        SELECT d.org_id, d.call_type, sum(d.posted_nano_usd) AS posted FROM attempt_delta d
         WHERE d.starts_at >= since AND d.org_id IN (SELECT m.org_id FROM meant m)
         GROUP BY d.org_id, d.call_type
    )
    SELECT m.id, m.org_id, m.scope, m."window", m.timezone, m.starts_at, m.ends_at, m.limit_nano_usd,
           m.reserved_nano_usd, m.spent_nano_usd, now(),
           (SELECT coalesce(sum(q.posted_nano_usd), 0) FROM quarter_sum q
             WHERE q.org_id = m.org_id AND q.starts_at >= since
               AND (m.call_type IS NULL OR q.call_type = m.call_type))::bigint
           + (SELECT coalesce(sum(d.posted), 0) FROM delta d
               WHERE d.org_id = m.org_id AND (m.call_type IS NULL OR d.call_type = m.call_type))::bigint,
           w.calls, w.hold, w.looked_at >= p_counted_max, p.starts, p.limits, p.spent
      FROM meant m
     CROSS JOIN LATERAL (
        SELECT count(*)::int AS looked_at, (count(*) FILTER (WHERE x.hold > m.left_nano_usd))::int AS calls,
               coalesce(sum(x.hold) FILTER (WHERE x.hold > m.left_nano_usd), 0)::bigint AS hold
          FROM (SELECT l.requested_hold_nano_usd AS hold FROM llm_call l
                 WHERE l.org_id = m.org_id AND l.requested_hold_nano_usd IS NOT NULL
                   AND (m.call_type IS NULL OR l.call_type = m.call_type)
                 LIMIT p_counted_max) x) w
     CROSS JOIN LATERAL (
        SELECT coalesce(array_agg(x.starts_at ORDER BY x.starts_at), '{}') AS starts,
               coalesce(array_agg(x.limit_nano_usd ORDER BY x.starts_at), '{}') AS limits,
               coalesce(array_agg(x.spent_nano_usd ORDER BY x.starts_at), '{}') AS spent
          FROM (SELECT o.starts_at, o.limit_nano_usd, o.spent_nano_usd FROM budget o
                 WHERE o.org_id = m.org_id AND o.scope = m.scope AND o."window" = m."window"
                   AND o.starts_at < m.starts_at
                 ORDER BY o.starts_at DESC LIMIT p_periods) x) p
     ORDER BY m.ord;
END $$;
