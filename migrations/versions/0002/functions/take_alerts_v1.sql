-- callgate_take_alerts_v1: take deliveries of alerts that are due. Before that, make those of new alerts, and of alerts
-- that were resolved.
--
-- p_channels  what the caller delivers to: log, webhook.
-- p_lease_s   for so long nobody else takes them. If no outcome is kept until then, they are taken again.
-- Locks       alerts, then deliveries: SKIP LOCKED both.
CREATE FUNCTION callgate_take_alerts_v1(p_channels text[], p_limit int, p_lease_s float8)
RETURNS TABLE (
    delivery_id uuid, event text, channel text, tries int, alert_id bigint, kind text, org_id text, subject text,
    detail jsonb, at timestamptz, resolved_at timestamptz)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    WITH news AS MATERIALIZED (
        SELECT a.id, a.resolved_at FROM alert a WHERE NOT a.is_queued ORDER BY a.id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), queued AS (
        UPDATE alert a SET is_queued = true FROM news n WHERE a.id = n.id
    )
    INSERT INTO alert_delivery (alert_id, event, channel)
    SELECT n.id, e.event, c.channel
      FROM news n CROSS JOIN (VALUES ('raised'), ('resolved')) e(event) CROSS JOIN unnest(p_channels) c(channel)
     WHERE e.event = 'raised' OR n.resolved_at IS NOT NULL
    ON CONFLICT (alert_id, event, channel) DO NOTHING;
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT d.id FROM alert_delivery d
         WHERE d.delivered_at IS NULL AND d.dead_at IS NULL AND d.next_at <= now() AND d.channel = ANY (p_channels)
         ORDER BY d.next_at LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE alert_delivery d SET tries = d.tries + 1, next_at = now() + make_interval(secs => p_lease_s)
          FROM due WHERE d.id = due.id
        RETURNING d.id, d.alert_id, d.event, d.channel, d.tries
    )
    SELECT t.id, t.event, t.channel, t.tries, a.id, a.kind, a.org_id, a.subject, a.detail, a.at, a.resolved_at
      FROM taken t JOIN alert a ON a.id = t.alert_id
     ORDER BY a.id, t.event;
END $$;
