-- callgate_alerts_v1: alerts, newest first, and how their webhook messages are delivered.
--
-- p_org_id   NULL: of all organisations.
-- p_ids      NULL: any.
-- p_states   if not NULL: only alerts of these kinds whose condition still holds.
-- Returns    webhook: dead, pending or delivered, the first of these that applies to a message; empty: it has none.
CREATE FUNCTION callgate_alerts_v1(p_org_id text, p_ids bigint[], p_states text[], p_limit int)
RETURNS TABLE (
    alert_id bigint, kind text, org_id text, subject text, detail jsonb, at timestamptz, resolved_at timestamptz,
    webhook text, tries int, failure text)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    WITH listed AS MATERIALIZED (
        SELECT a.* FROM alert a
         WHERE (p_org_id IS NULL OR a.org_id = p_org_id) AND (p_ids IS NULL OR a.id = ANY (p_ids))
           AND (p_states IS NULL OR a.kind = ANY (p_states) AND a.resolved_at IS NULL)
         ORDER BY a.id DESC LIMIT p_limit
    )
    SELECT a.id, a.kind, a.org_id, a.subject, a.detail, a.at, a.resolved_at,
           CASE WHEN w.has_dead THEN 'dead' WHEN w.has_pending THEN 'pending' WHEN w.messages > 0 THEN 'delivered'
           ELSE '' END, w.tries, w.failure
      FROM listed a
     CROSS JOIN LATERAL (
        SELECT count(*) AS messages, bool_or(d.dead_at IS NOT NULL) AS has_dead,
               bool_or(d.dead_at IS NULL AND d.delivered_at IS NULL) AS has_pending,
               coalesce(max(d.tries), 0) AS tries, max(d.failure) AS failure
          FROM alert_delivery d WHERE d.alert_id = a.id AND d.channel = 'webhook') w
     ORDER BY a.id DESC
$$;
