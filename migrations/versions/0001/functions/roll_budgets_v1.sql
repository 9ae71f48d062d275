-- callgate_roll_budgets_v1: the current budgets of (organisation, scope) pairs. A budget whose period has ended is
-- rolled over.
--
-- A new period is a new row: the limit is copied, and holds stay in the period in which they were made. It begins when
-- the last one ended or later, because two periods must not overlap after a change of the time zone. A budget whose
-- time zone this server does not know stays ended until set_budget_v1 changes the zone.
-- Locks     if a period has ended: all these budgets first, by id. So a limit that is being set now is the one that is
--           copied.
-- Returns   the ids of the newest row of each (organisation, scope, window).
CREATE FUNCTION callgate_roll_budgets_v1(p_org_ids text[], p_scopes text[]) RETURNS bigint[]
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    newest bigint[];
    ended bigint[];
BEGIN
    FOR pass IN 1 .. 2 LOOP
        SELECT array_agg(b.id), array_agg(b.id) FILTER (WHERE b.ends_at <= now()) INTO newest, ended
          FROM unnest(p_org_ids, p_scopes) AS p(org_id, scope)
         CROSS JOIN (VALUES ('day'), ('month')) AS w("window")
         CROSS JOIN LATERAL (
            SELECT id, ends_at FROM budget
             WHERE budget.org_id = p.org_id AND budget.scope = p.scope AND budget."window" = w."window"
             ORDER BY starts_at DESC LIMIT 1
         ) b;
        EXIT WHEN ended IS NULL;

        PERFORM 1 FROM budget WHERE id = ANY (newest) ORDER BY id FOR UPDATE;
        INSERT INTO budget (org_id, scope, "window", timezone, starts_at, ends_at, limit_nano_usd)
        SELECT b.org_id, b.scope, b."window", b.timezone, greatest(p.starts_at, b.ends_at), p.ends_at,
               b.limit_nano_usd
          FROM budget b CROSS JOIN LATERAL callgate_period_v1(b."window", b.timezone, now()) p
         WHERE b.id = ANY (ended) AND p.ends_at IS NOT NULL
        ON CONFLICT (org_id, scope, "window", starts_at) DO NOTHING;
    END LOOP;
    RETURN coalesce(newest, '{}');
END $$;
