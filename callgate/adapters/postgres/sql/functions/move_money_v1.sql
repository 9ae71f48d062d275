-- callgate_move_money_v1: change what budgets have reserved and spent. The arrays may name the same budget several
-- times.
--
-- p_reserved      how much to add to each; p_spent likewise.
-- p_running_only  only a budget whose period is running frees money for its organisation.
-- Locks           the budgets, by id.
-- Returns         the organisations that have freed money: less of one of their budgets is used than before. Null if
--                 there are none.
CREATE FUNCTION callgate_move_money_v1(
    p_budget_ids bigint[], p_reserved bigint[], p_spent bigint[], p_running_only boolean
) RETURNS text[]
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    freed text[];
BEGIN
    PERFORM 1 FROM budget x WHERE x.id = ANY (p_budget_ids) ORDER BY x.id FOR UPDATE;
    WITH moved AS (
        UPDATE budget x SET reserved_nano_usd = x.reserved_nano_usd + m.reserved,
                            spent_nano_usd = x.spent_nano_usd + m.spent
          FROM (SELECT u.id, sum(u.reserved)::bigint AS reserved, sum(u.spent)::bigint AS spent
                  FROM unnest(p_budget_ids, p_reserved, p_spent) AS u(id, reserved, spent)
                 GROUP BY u.id) m
         WHERE x.id = m.id
        RETURNING x.org_id, m.reserved + m.spent AS change, x.starts_at <= now() AND now() < x.ends_at AS is_running
    )
    SELECT array_agg(DISTINCT org_id) FILTER (WHERE change < 0 AND (is_running OR NOT p_running_only)) INTO freed
      FROM moved;
    RETURN freed;
END $$;
