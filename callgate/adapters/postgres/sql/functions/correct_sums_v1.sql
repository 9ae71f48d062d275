-- callgate_correct_sums_v1: make the sums of a day in UTC what its rows say. For days of before the sums were kept, and for
-- sums that the audit has found wrong.
--
-- The rows of a dropped month are no more, so its days are refused. It appends the difference as deltas. Rows, sums and deltas are read in one statement, so whatever is settled or folded
-- meanwhile is counted once.
-- Locks     what take_sums_v1 locks.
-- Returns   how many deltas were appended; null if another session changes sums.
CREATE FUNCTION callgate_correct_sums_v1(p_day date) RETURNS int
LANGUAGE plpgsql SET timezone = 'UTC' SET enable_sort = off AS $$
DECLARE
    starts CONSTANT timestamptz := p_day;
    ends CONSTANT timestamptz := p_day + 1;
    orgs CONSTANT text[] := callgate_sum_orgs_v1();
    appended int;
BEGIN
    IF ends <= (SELECT max(m.ends_at) FROM dropped_month m) THEN
        RAISE EXCEPTION 'the rows of % were dropped, so its sums cannot be corrected', p_day;
    END IF;
    IF NOT callgate_take_sums_v1() THEN
        RETURN NULL;
    END IF;
    INSERT INTO attempt_delta (
        starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, budget_ids,
        attempts, calls, posted_nano_usd, unknown_bills, unknown_nano_usd, without_tokens, input_tokens,
        cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, latency_ms,
        timed, collapsed, saved_nano_usd)
    SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, '{}',
           sum(attempts), sum(calls), sum(posted_nano_usd), sum(unknown_bills), sum(unknown_nano_usd),
           sum(without_tokens), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens),
           sum(cache_write_1h_tokens), sum(output_tokens), sum(reasoning_tokens), sum(latency_ms), sum(timed),
           sum(collapsed), sum(saved_nano_usd)
      FROM (
        SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome,
               attempts, calls, posted_nano_usd, unknown_bills, unknown_nano_usd, without_tokens, input_tokens,
               cached_input_tokens, cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens,
               latency_ms, timed, collapsed, saved_nano_usd
          FROM callgate_posted_v1(orgs, starts, ends, true)
        UNION ALL
        SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome,
               -attempts, -calls, -posted_nano_usd, -unknown_bills, -unknown_nano_usd, -without_tokens, -input_tokens,
               -cached_input_tokens, -cache_write_tokens, -cache_write_1h_tokens, -output_tokens, -reasoning_tokens,
               -latency_ms, -timed, -collapsed, -saved_nano_usd
          FROM quarter_sum WHERE starts_at >= starts AND starts_at < ends
        UNION ALL
        SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome,
               -attempts, -calls, -posted_nano_usd, -unknown_bills, -unknown_nano_usd, -without_tokens, -input_tokens,
               -cached_input_tokens, -cache_write_tokens, -cache_write_1h_tokens, -output_tokens, -reasoning_tokens,
               -latency_ms, -timed, -collapsed, -saved_nano_usd
          FROM attempt_delta WHERE starts_at >= starts AND starts_at < ends
      ) x
     GROUP BY starts_at, org_id, project, call_type, provider, model, tier, kind, outcome
    HAVING sum(attempts) <> 0 OR sum(calls) <> 0 OR sum(posted_nano_usd) <> 0 OR sum(unknown_bills) <> 0 OR
           sum(unknown_nano_usd) <> 0
        OR sum(without_tokens) <> 0 OR sum(input_tokens) <> 0 OR sum(cached_input_tokens) <> 0 OR
               sum(cache_write_tokens) <> 0
        OR sum(cache_write_1h_tokens) <> 0 OR sum(output_tokens) <> 0 OR sum(reasoning_tokens) <> 0 OR sum(latency_ms)
               <> 0 OR sum(timed) <> 0
        OR sum(collapsed) <> 0 OR sum(saved_nano_usd) <> 0;
    GET DIAGNOSTICS appended = ROW_COUNT;
    INSERT INTO budget_sum
    SELECT x.budget_id, p_day, sum(x.posted) FROM (
        SELECT u.budget_id, p.posted_nano_usd AS posted
          FROM callgate_posted_v1(orgs, starts, ends, false) p CROSS JOIN LATERAL unnest(p.budget_ids) AS u(budget_id)
        UNION ALL
        SELECT u.budget_id, -d.posted_nano_usd
          FROM attempt_delta d CROSS JOIN LATERAL unnest(d.budget_ids) AS u(budget_id)
         WHERE d.starts_at >= starts AND d.starts_at < ends
        UNION ALL
        SELECT b.budget_id, -b.posted_nano_usd FROM budget_sum b WHERE b.day = p_day
      ) x GROUP BY x.budget_id HAVING sum(x.posted) <> 0
    ON CONFLICT (budget_id, day) DO UPDATE SET posted_nano_usd = budget_sum.posted_nano_usd + excluded.posted_nano_usd;
    DELETE FROM sum_gap g WHERE g.day = p_day;
    RETURN appended;
END $$;
