-- callgate_replay_alerts_v1: have webhook messages of alerts sent again, at once, whatever became of them; and log who
-- did it and why. A message keeps its id.
--
-- p_ids     the alerts; NULL: those with a dead message. Alerts that never had a message get one.
-- p_limit   at most so many alerts, the oldest ones.
-- Locks     deliveries, in the order of alerts.
-- Returns   the alerts whose messages are sent again.
CREATE FUNCTION callgate_replay_alerts_v1(p_ids bigint[], p_limit int, p_operator text, p_reason text)
RETURNS SETOF bigint
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    chosen bigint[];
BEGIN
    SELECT array_agg(x.id) INTO chosen FROM (
        SELECT a.id FROM alert a
         WHERE CASE WHEN p_ids IS NULL THEN EXISTS (
                   SELECT 1 FROM alert_delivery d WHERE d.alert_id = a.id AND d.dead_at IS NOT NULL)
               ELSE a.id = ANY (p_ids) END
         ORDER BY a.id LIMIT p_limit) x;
    IF chosen IS NULL THEN
        RETURN;
    END IF;
    INSERT INTO alert_delivery AS d (alert_id, event, channel)
    SELECT a.id, e.event, 'webhook' FROM alert a CROSS JOIN (VALUES ('raised'), ('resolved')) e(event)
     WHERE a.id = ANY (chosen) AND (e.event = 'raised' OR a.resolved_at IS NOT NULL)
     ORDER BY a.id, e.event
    ON CONFLICT (alert_id, event, channel) DO UPDATE
       SET delivered_at = NULL, dead_at = NULL, failure = NULL, tries = 0, next_at = now(), queued_at = now();
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'alerts.replay', NULL, cardinality(chosen) || ' alerts',
        jsonb_build_object('first', chosen[1], 'last', chosen[cardinality(chosen)]));
    RETURN QUERY SELECT unnest(chosen);
END $$;
