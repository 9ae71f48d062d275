-- callgate_remove_budget_v1: remove a budget with all its periods, if its limit is still what the operator saw, and log
-- the action.
--
-- Attempts that hold money in it are posted as usual; only their money is in no budget of that name any more. Sums and
-- costs stay. An organisation without any budget sends nothing, or has the default limit.
-- p_seen    the limit that the operator saw.
-- Locks     all periods of the budget, by id, then waiting calls: SKIP LOCKED.
-- Returns   is_removed: false if the limit is another one now, or if there is no such budget; then nothing is changed.
--           before_nano_usd: the limit; null: there is no such budget.
CREATE FUNCTION callgate_remove_budget_v1(
    p_org_id text, p_scope text, p_window text, p_seen bigint, p_operator text, p_reason text
) RETURNS TABLE (is_removed boolean, before_nano_usd bigint)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    b budget%ROWTYPE;
BEGIN
    FOR pass IN 1 .. 2 LOOP
        -- Once its rows are locked, nobody adds a period: see set_budget_v1.
        PERFORM 1 FROM budget x WHERE x.org_id = p_org_id AND x.scope = p_scope AND x."window" = p_window
          ORDER BY x.id FOR UPDATE;
    END LOOP;
    SELECT * INTO b FROM budget x WHERE x.org_id = p_org_id AND x.scope = p_scope AND x."window" = p_window
     ORDER BY x.starts_at DESC LIMIT 1;
    before_nano_usd := b.limit_nano_usd;
    is_removed := coalesce(b.limit_nano_usd = p_seen, false);
    IF is_removed THEN
        DELETE FROM budget x WHERE x.org_id = p_org_id AND x.scope = p_scope AND x."window" = p_window;
        PERFORM callgate_log_action_v1(
            p_operator, p_reason, 'budget.remove', p_org_id, concat_ws('/', p_org_id, p_scope, p_window),
            jsonb_build_object('from_nano_usd', b.limit_nano_usd, 'spent_nano_usd', b.spent_nano_usd,
                               'reserved_nano_usd', b.reserved_nano_usd));
        PERFORM callgate_free_budget_waiters_v1(ARRAY[p_org_id]);
    END IF;
    RETURN NEXT;
END $$;
