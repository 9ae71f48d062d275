-- callgate_prove_sums_v1: compare the sums of a time with the rows, and seal the quarter hours that are right.
--
-- What is proven once is sealed, with its sums. A later delta removes the seal (fold_sums_v1). What submissions have saved
-- is not compared: it was what their call cost when they were answered. Days and budgets are compared if the time is a
-- day in UTC.
-- p_from, p_until  whole quarter hours; at most a day.
-- Locks            what keep_sums_v1 locks; if a session changes sums now, nothing is sealed. Then ai_call_log, shared.
-- Returns          wrong_sums: sums that differ from their rows; drift_nano_usd: by how much they differ in total;
--                  wrong_budgets: the same by budget; calls_with_missing_rows and rows_without_call: see compare_sums_v1;
--                  sealed: how many quarter hours are sealed now.
CREATE FUNCTION callgate_prove_sums_v1(p_from timestamptz, p_until timestamptz)
RETURNS TABLE (
    wrong_sums int, drift_nano_usd bigint, wrong_budgets int, calls_with_missing_rows int, rows_without_call int,
    sealed int)
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
#variable_conflict use_column
DECLARE
    may_seal CONSTANT boolean := callgate_keep_sums_v1();
    orgs CONSTANT text[] := callgate_sum_orgs_v1();
    is_by_id boolean := true;
    unseen int;
    wrong timestamptz[];
BEGIN
    IF p_until > p_from + interval '1 day' THEN
        RAISE EXCEPTION 'at most one day at a time is proven' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    -- A month that is being dropped: wait until it is in dropped_month, and has no rows to be compared with any more.
    LOCK TABLE ai_call_log IN ACCESS SHARE MODE;
    IF p_until <= (SELECT max(m.ends_at) FROM dropped_month m) THEN
        SELECT 0, 0, 0, 0, 0, count(*) INTO wrong_sums, drift_nano_usd, wrong_budgets, calls_with_missing_rows,
               rows_without_call, sealed
          FROM sum_seal s WHERE s.starts_at >= p_from AND s.starts_at < p_until;
        RETURN NEXT;
        RETURN;
    END IF;
    LOOP
        SELECT c.wrong_sums, c.drift_nano_usd, c.wrong_budgets, c.calls_with_missing_rows, c.rows_without_call,
               c.open_quarters, c.unseen_rows
          INTO wrong_sums, drift_nano_usd, wrong_budgets, calls_with_missing_rows, rows_without_call, wrong, unseen
          FROM callgate_compare_sums_v1(orgs, p_from, p_until, is_by_id) c;
        EXIT WHEN unseen = 0;
        is_by_id := false;
    END LOOP;
    IF may_seal AND wrong_budgets = 0 AND calls_with_missing_rows = 0 AND rows_without_call = 0 THEN
        INSERT INTO sum_seal (starts_at, attempts, posted_nano_usd)
        SELECT q.starts_at, coalesce(s.attempts, 0), coalesce(s.posted, 0)
          FROM generate_series(p_from, least(p_until, callgate_quarter_v1(now())) - interval '15 min', interval '15
                 min')
               AS q(starts_at)
          LEFT JOIN (SELECT starts_at, sum(attempts) AS attempts, sum(posted_nano_usd) AS posted FROM quarter_sum
                      WHERE starts_at >= p_from AND starts_at < p_until GROUP BY starts_at) s USING (starts_at)
         WHERE q.starts_at <> ALL (wrong)
        ON CONFLICT (starts_at) DO NOTHING;
    END IF;
    SELECT count(*) INTO sealed FROM sum_seal s WHERE s.starts_at >= p_from AND s.starts_at < p_until;
    RETURN NEXT;
END $$;
