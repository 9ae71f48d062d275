-- callgate_fold_sums_v1: move the oldest deltas into the sums, at most p_limit of them.
--
-- It is one statement, so a reader sees each delta either in attempt_delta or in the sums. A quarter hour whose sums
-- change is proven again: it loses its seal.
-- Locks     what take_sums_v1 locks. No settlement waits for that: it only appends.
-- Returns   how many were moved; null if another session changes sums.
CREATE FUNCTION callgate_fold_sums_v1(p_limit int) RETURNS int
LANGUAGE plpgsql SET timezone = 'UTC' AS $$
DECLARE
    moved int;
BEGIN
    IF NOT callgate_take_sums_v1() THEN
        RETURN NULL;
    END IF;
    WITH taken AS MATERIALIZED (
        DELETE FROM attempt_delta d
         WHERE d.id = ANY (ARRAY(SELECT x.id FROM attempt_delta x ORDER BY x.id LIMIT least(p_limit, 50000)))
        RETURNING d.*
    ), quarters AS (
        SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome,
               sum(attempts) AS attempts, sum(calls) AS calls, sum(posted_nano_usd) AS posted_nano_usd,
               sum(unknown_bills) AS unknown_bills, sum(unknown_nano_usd) AS unknown_nano_usd, sum(without_tokens) AS
               without_tokens, sum(input_tokens) AS input_tokens, sum(cached_input_tokens) AS cached_input_tokens,
               sum(cache_write_tokens) AS cache_write_tokens, sum(cache_write_1h_tokens) AS cache_write_1h_tokens,
               sum(output_tokens) AS output_tokens, sum(reasoning_tokens) AS reasoning_tokens, sum(latency_ms) AS
               latency_ms, sum(timed) AS timed, sum(collapsed) AS collapsed, sum(saved_nano_usd) AS saved_nano_usd
          FROM taken GROUP BY starts_at, org_id, project, call_type, provider, model, tier, kind, outcome
    ), into_quarters AS (
        INSERT INTO quarter_sum SELECT * FROM quarters
        ON CONFLICT ON CONSTRAINT uq_quarter_sum_key DO UPDATE SET
            attempts = quarter_sum.attempts + excluded.attempts, calls = quarter_sum.calls + excluded.calls,
            posted_nano_usd = quarter_sum.posted_nano_usd + excluded.posted_nano_usd, unknown_bills =
            quarter_sum.unknown_bills + excluded.unknown_bills, unknown_nano_usd =
            quarter_sum.unknown_nano_usd + excluded.unknown_nano_usd, without_tokens =
            quarter_sum.without_tokens + excluded.without_tokens, input_tokens = quarter_sum.input_tokens +
            excluded.input_tokens, cached_input_tokens = quarter_sum.cached_input_tokens +
            excluded.cached_input_tokens, cache_write_tokens = quarter_sum.cache_write_tokens +
            excluded.cache_write_tokens, cache_write_1h_tokens = quarter_sum.cache_write_1h_tokens +
            excluded.cache_write_1h_tokens, output_tokens = quarter_sum.output_tokens +
            excluded.output_tokens, reasoning_tokens = quarter_sum.reasoning_tokens +
            excluded.reasoning_tokens, latency_ms = quarter_sum.latency_ms + excluded.latency_ms, timed =
            quarter_sum.timed + excluded.timed, collapsed = quarter_sum.collapsed + excluded.collapsed,
            saved_nano_usd = quarter_sum.saved_nano_usd + excluded.saved_nano_usd
    ), into_days AS (
        INSERT INTO day_sum
        SELECT starts_at::date, org_id, project, call_type, provider, model, tier, kind, outcome,
               sum(attempts), sum(calls), sum(posted_nano_usd), sum(unknown_bills), sum(unknown_nano_usd),
               sum(without_tokens), sum(input_tokens), sum(cached_input_tokens), sum(cache_write_tokens),
               sum(cache_write_1h_tokens), sum(output_tokens), sum(reasoning_tokens), sum(latency_ms), sum(timed),
               sum(collapsed), sum(saved_nano_usd)
          FROM quarters GROUP BY starts_at::date, org_id, project, call_type, provider, model, tier, kind, outcome
        ON CONFLICT ON CONSTRAINT uq_day_sum_key DO UPDATE SET
            attempts = day_sum.attempts + excluded.attempts, calls = day_sum.calls + excluded.calls,
            posted_nano_usd = day_sum.posted_nano_usd + excluded.posted_nano_usd, unknown_bills =
            day_sum.unknown_bills + excluded.unknown_bills, unknown_nano_usd = day_sum.unknown_nano_usd +
            excluded.unknown_nano_usd, without_tokens = day_sum.without_tokens + excluded.without_tokens,
            input_tokens = day_sum.input_tokens + excluded.input_tokens, cached_input_tokens =
            day_sum.cached_input_tokens + excluded.cached_input_tokens, cache_write_tokens =
            day_sum.cache_write_tokens + excluded.cache_write_tokens, cache_write_1h_tokens =
            day_sum.cache_write_1h_tokens + excluded.cache_write_1h_tokens, output_tokens =
            day_sum.output_tokens + excluded.output_tokens, reasoning_tokens = day_sum.reasoning_tokens +
            excluded.reasoning_tokens, latency_ms = day_sum.latency_ms + excluded.latency_ms, timed =
            day_sum.timed + excluded.timed, collapsed = day_sum.collapsed + excluded.collapsed, saved_nano_usd
            = day_sum.saved_nano_usd + excluded.saved_nano_usd
    ), into_budgets AS (
        INSERT INTO budget_sum
        SELECT u.budget_id, t.starts_at::date, sum(t.posted_nano_usd)
          FROM taken t CROSS JOIN LATERAL unnest(t.budget_ids) AS u(budget_id)
         GROUP BY 1, 2
        ON CONFLICT (budget_id, day) DO UPDATE SET posted_nano_usd = budget_sum.posted_nano_usd +
               excluded.posted_nano_usd
    ), unsealed AS (
        DELETE FROM sum_seal s WHERE s.starts_at IN (SELECT q.starts_at FROM quarters q)
    )
    SELECT count(*) INTO moved FROM taken;
    RETURN moved;
END $$;
