-- callgate_set_budget_v1: set the limit of a scope now.
--
-- The current period keeps its ends, and what is spent and held in it. A new time zone applies from the next period on.
-- Exception: a period has ended, and no period follows it because its time zone is unknown. Then the next period is in
-- the new zone.
-- Calls that wait for money and fit now are made due at once.
-- Locks     the scope's budgets, by id, then waiting calls: SKIP LOCKED.
-- Returns   the budget. No row, and nothing is changed, if pg_timezone_names does not have the time zone. Postgres
--           itself would accept any misspelling that ends in a digit as a time zone.
CREATE FUNCTION callgate_set_budget_v1(
    p_org_id text, p_scope text, p_window text, p_limit bigint, p_timezone text
) RETURNS SETOF budget
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    current_ids bigint[];
BEGIN
    IF NOT EXISTS (SELECT 1 FROM pg_timezone_names z WHERE z.name = p_timezone) THEN
        RETURN;
    END IF;
    INSERT INTO budget (org_id, scope, "window", timezone, starts_at, ends_at, limit_nano_usd)
    SELECT p_org_id, p_scope, p_window, p_timezone, p.starts_at, p.ends_at, p_limit
      FROM callgate_period_v1(p_window, p_timezone, now()) p
     WHERE NOT EXISTS (SELECT 1 FROM budget b WHERE b.org_id = p_org_id AND b.scope = p_scope
                          AND b."window" = p_window)
    ON CONFLICT (org_id, scope, "window", starts_at) DO NOTHING;
    current_ids := callgate_roll_budgets_v1(ARRAY[p_org_id], ARRAY[p_scope]);
    -- A transaction that rolls a period over locks its row. Once this one has locked that row, the newest period stays
    -- the newest. Otherwise another transaction could roll over meanwhile, and the new period would keep the old limit.
    PERFORM 1 FROM budget b WHERE b.id = ANY (current_ids) ORDER BY b.id FOR UPDATE;
    current_ids := callgate_roll_budgets_v1(ARRAY[p_org_id], ARRAY[p_scope]);
    UPDATE budget b SET timezone = p_timezone
     WHERE b.id = ANY (current_ids) AND b."window" = p_window AND b.ends_at <= now();
    IF FOUND THEN
        current_ids := callgate_roll_budgets_v1(ARRAY[p_org_id], ARRAY[p_scope]);
    END IF;
    RETURN QUERY UPDATE budget b SET limit_nano_usd = p_limit, timezone = p_timezone
      WHERE b.id = ANY (current_ids) AND b."window" = p_window
     RETURNING b.*;
    PERFORM callgate_free_budget_waiters_v1(ARRAY[p_org_id]);
END $$;
