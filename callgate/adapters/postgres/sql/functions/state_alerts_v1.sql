-- callgate_state_alerts_v1: conditions that hold now, and figures that are known to be in order. A part of
-- look_for_alerts_v1.
--
-- p_rules          thresholds; see AlertRules in callgate/domain/alert_rules.py.
-- p_figures_age_s  figures of the ledger that are older say nothing.
-- p_rows_max       at most so many rows of each kind are read.
-- Returns          holds: whether the condition holds. Conditions that are not returned do not hold, except those of
--                  figures: nothing is known of them.
CREATE FUNCTION callgate_state_alerts_v1(p_rules jsonb, p_figures_age_s float8, p_rows_max int)
RETURNS TABLE (kind text, key text, org_id text, subject text, detail jsonb, holds boolean)
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_sort = off AS $$
    WITH opened AS (
        SELECT b.*, CASE WHEN b.reason = 'rate_limited' AND b.probe_at IS NOT NULL THEN 'key_blocked'
                    ELSE 'breaker_open' END AS kind
          FROM breaker b WHERE b.is_open LIMIT p_rows_max
    ), dead AS MATERIALIZED (
        SELECT d.org_id, count(*) AS calls
          FROM (SELECT l.org_id FROM llm_call l
                 WHERE l.state = 'dead' AND l.generation > 0
                   AND l.attempt_id >= callgate_uuid_floor_v1(now() - interval '1 hour')
                 -- This order is that of the index: without it all dead letters may be read.
                 ORDER BY l.attempt_id LIMIT p_rows_max) d
         GROUP BY d.org_id
    ), rates AS (
        SELECT d.*, coalesce(p_rules->'orgs'->d.org_id->'dead_letters_per_hour', p_rules->'dead_letters_per_hour')::int
                    AS threshold
          FROM dead d
    ), figure AS (
        -- The drift has two lines, of what is held and of what is spent.
        SELECT f->>0 AS name, sum((f->>2)::float8) AS value
          FROM ledger_figures l CROSS JOIN LATERAL json_array_elements(l.figures) f
         WHERE l.read_at > now() - make_interval(secs => p_figures_age_s)
         GROUP BY f->>0
    )
    SELECT o.kind, concat_ws(':', o.kind, o.id), coalesce(nullif(o.org_id, ''), o.credential),
           concat_ws('/', o.provider, o.model, nullif(o.credential, '')),
           jsonb_build_object(
               'provider', o.provider, 'model', o.model, 'credential', o.credential, 'since', o.changed_at,
               'calls_of', coalesce(nullif(o.org_id, ''), 'all'),
               'reason', CASE WHEN o.probe_at IS NULL THEN 'operator' ELSE coalesce(o.reason, '') END,
               'cause', o.cause, 'fingerprint', o.error_fingerprint),
           true
      FROM opened o
     WHERE o.kind = 'breaker_open'
        OR o.changed_at <= now() - make_interval(secs => (p_rules->>'blocked_key_s')::float8)
     UNION ALL
    SELECT 'dead_letters', concat_ws(':', 'dead_letters', r.org_id), r.org_id, r.org_id,
           jsonb_build_object('per_hour', r.calls, 'threshold', r.threshold), true
      FROM rates r WHERE r.calls >= r.threshold
     UNION ALL
    SELECT 'frozen', concat_ws(':', 'frozen', p.org_id), p.org_id, p.org_id,
           jsonb_build_object('operator', left(p.operator, 200), 'reason', left(p.reason, 200), 'since', p.at), true
      FROM pause p WHERE p.is_freeze
     UNION ALL
    SELECT 'workers_differ', 'workers_differ', '', 'workers', d.detail, true
      FROM callgate_workers_differ_v1((p_rules->>'workers_differ_s')::float8, p_rows_max) AS d(detail)
     WHERE d.detail IS NOT NULL
     UNION ALL
    SELECT k.kind, k.kind, '', 'ledger', jsonb_build_object('value', f.value, 'threshold', k.threshold),
           CASE k.kind WHEN 'drift' THEN f.value <> 0 ELSE f.value >= k.threshold END
      FROM (VALUES ('unknown_money', 'callgate_unknown_bills_usd', (p_rules->>'unknown_usd')::float8),
                   ('queue_age', 'callgate_queue_age_seconds', (p_rules->>'queue_age_s')::float8),
                   ('drift', 'callgate_audit_drift_usd', 0)) AS k(kind, name, threshold)
      JOIN figure f USING (name)
$$;
