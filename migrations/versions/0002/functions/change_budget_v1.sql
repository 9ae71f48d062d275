-- callgate_change_budget_v1: set the limit of a scope, if it is still what the operator saw, and log the action.
--
-- p_timezone  null: that of the budget, or UTC.
-- p_seen      the limit that the operator saw; null: the operator saw no budget.
-- Locks       as set_budget_v1.
-- Returns     is_set: false if the limit is another one now; then nothing is changed. before_nano_usd: the limit before.
--             Then the budget, if there is one. If the time zone is unknown: is_set is null, only the zone is returned, and
--             nothing is changed.
CREATE FUNCTION callgate_change_budget_v1(
    p_org_id text, p_scope text, p_window text, p_limit bigint, p_timezone text, p_seen bigint, p_operator text,
    p_reason text
) RETURNS TABLE (
    is_set boolean, before_nano_usd bigint, id bigint, org_id text, scope text, "window" text, timezone text,
    starts_at timestamptz, ends_at timestamptz, limit_nano_usd bigint, reserved_nano_usd bigint, spent_nano_usd bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    is_new boolean := false;
    b budget%ROWTYPE;
    zone text;
BEGIN
    IF p_seen IS NULL AND EXISTS (SELECT 1 FROM pg_timezone_names z WHERE z.name = coalesce(p_timezone, 'UTC')) THEN
        -- Of two operators who make the same budget, the second waits here, and then finds the first one's limit.
        INSERT INTO budget (org_id, scope, "window", timezone, starts_at, ends_at, limit_nano_usd)
        SELECT p_org_id, p_scope, p_window, coalesce(p_timezone, 'UTC'), p.starts_at, p.ends_at, p_limit
          FROM callgate_period_v1(p_window, coalesce(p_timezone, 'UTC'), now()) p
         WHERE NOT EXISTS (SELECT 1 FROM budget x WHERE x.org_id = p_org_id AND x.scope = p_scope
                              AND x."window" = p_window)
        ON CONFLICT (org_id, scope, "window", starts_at) DO NOTHING;
        is_new := FOUND;
    END IF;
    FOR pass IN 1 .. 2 LOOP
        -- Once its row is locked, the newest period stays the newest: see set_budget_v1.
        PERFORM 1 FROM budget x WHERE x.id = ANY (callgate_roll_budgets_v1(ARRAY[p_org_id], ARRAY[p_scope]))
          ORDER BY x.id FOR UPDATE;
    END LOOP;
    SELECT * INTO b FROM budget x WHERE x.org_id = p_org_id AND x.scope = p_scope AND x."window" = p_window
     ORDER BY x.starts_at DESC LIMIT 1;
    zone := coalesce(p_timezone, b.timezone, 'UTC');
    before_nano_usd := CASE WHEN NOT is_new THEN b.limit_nano_usd END;
    is_set := before_nano_usd IS NOT DISTINCT FROM p_seen;
    IF is_set THEN
        SELECT * INTO b FROM callgate_set_budget_v1(p_org_id, p_scope, p_window, p_limit, zone);
        IF NOT FOUND THEN
            is_set := NULL; timezone := zone;
            RETURN NEXT;
            RETURN;
        END IF;
        PERFORM callgate_log_action_v1(
            p_operator, p_reason, 'budget.set', p_org_id, concat_ws('/', p_org_id, p_scope, p_window),
            jsonb_build_object('from_nano_usd', before_nano_usd, 'to_nano_usd', p_limit, 'timezone', zone));
    END IF;
    id := b.id; org_id := b.org_id; scope := b.scope; "window" := b."window"; timezone := b.timezone;
    starts_at := b.starts_at; ends_at := b.ends_at; limit_nano_usd := b.limit_nano_usd;
    reserved_nano_usd := b.reserved_nano_usd; spent_nano_usd := b.spent_nano_usd;
    RETURN NEXT;
END $$;
