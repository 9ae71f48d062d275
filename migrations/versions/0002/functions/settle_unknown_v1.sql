-- callgate_settle_unknown_v1: replace what attempts with an unknown bill have posted by what the provider billed, and
-- log who did it. Doing it again changes nothing.
--
-- The status and posted_at stay as they are. A late answer is recognised by finished_at > posted_at, and its real cost
-- is posted whether it came before or comes after this. The age of the bodies counts from posted_at, so it does not
-- start again.
-- Money moves in exactly the budgets in which the hold was made. Only a period that is running frees money for waiting
-- calls.
-- p_expected_posted  what the operator saw as posted. If it has changed since, the attempt is left alone.
-- p_may_exceed_hold  whether the bill may be larger than the hold.
-- Locks              dropped_month, so that no month is dropped meanwhile; then the attempts by id, the budgets
--                    by id, and waiting calls: SKIP LOCKED.
-- Returns            per row: outcome (`HandOutcome`); posted_before, posted: what was posted before and is posted now.
--                    With p_dry_run nothing is changed.
CREATE FUNCTION callgate_settle_unknown_v1(
    p_attempt_ids uuid[], p_expected_posted bigint[], p_billed bigint[], p_may_exceed_hold boolean[], p_operator text,
    p_reason text, p_dry_run boolean
) RETURNS TABLE (ord int, outcome text, posted_before bigint, posted bigint)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    a ai_call_log%ROWTYPE;
    archived_to timestamptz;
    moved_ids bigint[] := '{}';
    moved_spent bigint[] := '{}';
BEGIN
    LOCK TABLE dropped_month IN SHARE UPDATE EXCLUSIVE MODE;
    SELECT max(x.ends_at) INTO archived_to FROM dropped_month x;
    PERFORM callgate_lock_attempts_v1(p_attempt_ids);

    FOR row_no IN 1 .. cardinality(p_attempt_ids) LOOP
        ord := row_no;
        SELECT * INTO a FROM ai_call_log l WHERE l.attempt_id = p_attempt_ids[ord];
        posted_before := a.posted_nano_usd;
        posted := a.posted_nano_usd;
        outcome := CASE
            WHEN a.attempt_id IS NULL AND p_attempt_ids[ord] < callgate_uuid_floor_v1(archived_to) THEN 'archived'
            WHEN a.attempt_id IS NULL THEN 'not_found'
            WHEN a.settled_by_hand_at IS NOT NULL AND a.posted_nano_usd = p_billed[ord] THEN 'unchanged'
            WHEN a.posted_nano_usd IS NULL
                 OR NOT (a.settled_by_hand_at IS NOT NULL OR callgate_bill_unknown_v1(a.status, a.anomalies)
                         OR callgate_whole_hold_v1(a)) THEN 'not_unknown'
            WHEN a.posted_nano_usd <> p_expected_posted[ord] THEN 'changed'
            WHEN p_billed[ord] > a.hold_nano_usd AND NOT p_may_exceed_hold[ord] THEN 'above_hold'
            ELSE 'settled' END;
        IF outcome = 'settled' THEN
            posted := p_billed[ord];
        END IF;
        IF outcome = 'settled' AND NOT p_dry_run THEN
            UPDATE ai_call_log l SET posted_nano_usd = p_billed[ord], settled_by_hand_at = clock_timestamp()
             WHERE l.attempt_id = a.attempt_id;
            PERFORM callgate_log_action_v1(
                p_operator, p_reason, 'unknown.settle', a.org_id, a.attempt_id::text, jsonb_build_object(
                    'from_nano_usd', posted_before, 'to_nano_usd', p_billed[ord], 'provider', a.provider,
                    'model', a.model));
            moved_ids := moved_ids || a.budget_ids;
            moved_spent := moved_spent || array_fill(
                p_billed[ord] - posted_before, ARRAY[cardinality(a.budget_ids)]);
        END IF;
        RETURN NEXT;
    END LOOP;

    PERFORM callgate_free_budget_waiters_v1(callgate_move_money_v1(
        moved_ids, array_fill(0::bigint, ARRAY[cardinality(moved_ids)]), moved_spent, true));
END $$;
