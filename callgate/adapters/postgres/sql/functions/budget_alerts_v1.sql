-- callgate_budget_alerts_v1: for each budget whose period runs, the highest threshold that its use has reached, unless it
-- was alerted in this period. A part of look_for_alerts_v1.
--
-- What is held counts as used. 100 percent are also reached when a call waits because its hold does not fit into what
-- is left: a budget is seldom used to the last nano-USD. That is beside the use, so a lower threshold is alerted too,
-- then or later.
-- p_rules        budget_percents, and those of organisations; see AlertRules in callgate/domain/alert_rules.py.
-- p_budgets_max  at most so many budgets are read.
-- p_calls_max    at most so many waiting calls of each are read.
CREATE FUNCTION callgate_budget_alerts_v1(p_rules jsonb, p_budgets_max int, p_calls_max int)
RETURNS TABLE (kind text, key text, org_id text, subject text, detail jsonb)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH lowest AS MATERIALIZED (
        SELECT min(p::text::int) AS percent FROM jsonb_path_query(p_rules, '$.**.budget_percents[*]') p
    ), running AS MATERIALIZED (
        SELECT b.id, b.org_id, b.scope, b."window", b.starts_at, b.ends_at, b.limit_nano_usd, b.reserved_nano_usd,
               b.spent_nano_usd, (b.reserved_nano_usd + b.spent_nano_usd) * 100.0 AS used
          FROM budget b WHERE b.ends_at > now() LIMIT p_budgets_max
    ), used AS MATERIALIZED (
        SELECT r.*, coalesce(p_rules->'orgs'->r.org_id->'budget_percents', p_rules->'budget_percents') AS percents,
               EXISTS (
                   SELECT 1 FROM (
                       SELECT l.call_type, l.wait_reason, l.requested_hold_nano_usd FROM llm_call l
                        WHERE l.org_id = r.org_id AND l.requested_hold_nano_usd IS NOT NULL LIMIT p_calls_max) w
                    WHERE w.wait_reason = 'budget_exhausted' AND r.scope IN ('org', 'call_type:' || w.call_type)
                      AND w.requested_hold_nano_usd > r.limit_nano_usd - r.spent_nano_usd) AS is_exhausted
          FROM running r, lowest
         WHERE r.limit_nano_usd > 0 AND r.used >= r.limit_nano_usd::numeric * lowest.percent
    ), reached AS (
        SELECT u.*, (SELECT max(p::int) FROM jsonb_array_elements_text(u.percents) p
                      WHERE u.used >= u.limit_nano_usd::numeric * p::int) AS percent
          FROM used u
         UNION
        SELECT u.*, 100 FROM used u WHERE u.is_exhausted AND u.percents @> '100'
    ), named AS (
        SELECT r.*, concat_ws(':', 'budget_threshold', r.id, r.percent) AS key FROM reached r
         WHERE r.percent IS NOT NULL ORDER BY r.id, r.percent
    )
    SELECT 'budget_threshold', n.key, n.org_id, concat_ws('/', n.org_id, n.scope, n."window"),
           jsonb_build_object(
               'percent', n.percent, 'scope', n.scope, 'window', n."window", 'starts_at', n.starts_at,
               'ends_at', n.ends_at, 'limit_nano_usd', n.limit_nano_usd, 'spent_nano_usd', n.spent_nano_usd,
               'held_nano_usd', n.reserved_nano_usd)
      FROM named n
     WHERE NOT EXISTS (SELECT 1 FROM alert a WHERE a.key = n.key AND a.resolved_at IS NULL)
$$;
