-- callgate_check_budgets_v1: whether all budgets of a call have headroom for its hold; if not, which one refuses it.
--
-- Rules       callgate/domain/budgets.py, `admit`: spent + reserved + hold <= limit in each of them, or nothing is
--             held. If several budgets refuse, return the reason that lasts longest, then the lowest budget id.
-- p_budgets   as lock_budgets_v1 returns them.
-- p_reserved  their reserved_nano_usd, as this batch has changed it.
-- p_first     the index of the organisation's first budget; null if it has none.
-- p_scopes    the scopes of the call (scopes_v1).
-- Locks       nothing: it reads no table.
-- Returns     chosen, budget_ids: the call's budgets, by index and by id. refusal: `RefusalReason`; null if the hold
--             fits. refused_by: the index of the budget that refuses it. ends_at: when the last exhausted period ends.
CREATE FUNCTION callgate_check_budgets_v1(
    p_budgets budget[], p_reserved bigint[], p_first int, p_org_id text, p_scopes text[], p_hold bigint,
    OUT chosen int[], OUT budget_ids bigint[], OUT refusal text, OUT refused_by int, OUT ends_at timestamptz
)
LANGUAGE plpgsql AS $$
DECLARE
    refusals CONSTANT text[] := '{held,exhausted,too_small,no_period}';  -- the one that lasts longest is last
    b budget%ROWTYPE;
    i int := p_first;
    rank int;                   -- 0: it fits; else an index of `refusals`
    worst int := 0;
BEGIN
    chosen := '{}';
    budget_ids := '{}';
    WHILE i <= cardinality(p_budgets) LOOP
        b := p_budgets[i];
        EXIT WHEN b.org_id <> p_org_id;
        IF b.scope = ANY (p_scopes) THEN
            chosen := chosen || i;
            budget_ids := budget_ids || b.id;
            rank := CASE
                WHEN b.ends_at <= now() THEN 4
                WHEN p_hold <= b.limit_nano_usd - b.spent_nano_usd - p_reserved[i] THEN 0
                WHEN p_hold > b.limit_nano_usd THEN 3
                WHEN p_hold > b.limit_nano_usd - b.spent_nano_usd THEN 2
                ELSE 1 END;
            IF rank > worst THEN
                worst := rank;
                refused_by := i;
            END IF;
            IF rank = 2 THEN
                ends_at := greatest(ends_at, b.ends_at);
            END IF;
        END IF;
        i := i + 1;
    END LOOP;
    refusal := CASE WHEN chosen = '{}' THEN 'not_configured' WHEN worst > 0 THEN refusals[worst] END;
END $$;
