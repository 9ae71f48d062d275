-- callgate_look_for_alerts_v1: raise alerts for conditions that hold and are not alerted, and resolve those whose
-- condition has gone. If the last look is younger than p_interval_s, or another session looks now, do nothing.
--
-- p_interval_s   between two looks of all processes together.
-- p_rules        thresholds; see AlertRules in callgate/domain/alert_rules.py.
-- p_again_s      a condition that was resolved is not raised again for so long.
-- Other parameters: see budget_alerts_v1 and state_alerts_v1.
-- Locks          the row of alert_watch: SKIP LOCKED. Then alerts, which nobody locks together with anything else.
-- Returns        how many alerts were raised.
CREATE FUNCTION callgate_look_for_alerts_v1(
    p_interval_s float8, p_rules jsonb, p_again_s float8, p_figures_age_s float8,
    p_budgets_max int, p_calls_max int, p_rows_max int
) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    raised_count int;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM alert_watch) THEN
        INSERT INTO alert_watch (looked_at) VALUES ('-infinity') ON CONFLICT DO NOTHING;
    END IF;
    PERFORM 1 FROM alert_watch w
      WHERE w.looked_at <= now() - make_interval(secs => p_interval_s) FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    UPDATE alert_watch SET looked_at = now();
    WITH states AS MATERIALIZED (
        SELECT * FROM callgate_state_alerts_v1(p_rules, p_figures_age_s, p_rows_max)
    ), holding AS (
        SELECT s.kind, s.key, s.org_id, s.subject, s.detail FROM states s
         WHERE s.holds
           AND NOT EXISTS (SELECT 1 FROM alert a
                            WHERE a.key = s.key AND a.resolved_at > now() - make_interval(secs => p_again_s))
         UNION ALL
        SELECT * FROM callgate_budget_alerts_v1(p_rules, p_budgets_max, p_calls_max)
    ), resolved AS (
        UPDATE alert a SET resolved_at = now(), is_queued = false
         WHERE a.resolved_at IS NULL
           AND (a.kind IN ('breaker_open', 'key_blocked', 'dead_letters', 'frozen', 'workers_differ')
                AND NOT EXISTS (SELECT 1 FROM states s WHERE s.key = a.key)
                OR EXISTS (SELECT 1 FROM states s WHERE s.key = a.key AND NOT s.holds))
    ), raised AS (
        INSERT INTO alert (kind, key, org_id, subject, detail)
        SELECT h.kind, h.key, h.org_id, h.subject, h.detail FROM holding h
        ON CONFLICT (key) WHERE resolved_at IS NULL DO NOTHING
        RETURNING 1
    )
    SELECT count(*) INTO raised_count FROM raised;
    RETURN raised_count;
END $$;
