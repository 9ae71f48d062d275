-- callgate_compare_sums_v1: compare the sums of a time with the rows, which are read once. A part of prove_sums_v1.
--
-- Rows, sums and deltas are of one moment. Days and budgets are compared if the time is a day in UTC. Every call that was
-- created in the time, or has rows of it, must have exactly one row for each of its attempts; calls that are older than the
-- newest dropped month may have lost rows with it: those they have must be different ones.
-- p_by_id   find rows by their ids, which say when they were made: rows lie in that order. Otherwise each organisation is
--           looked up by itself, which is slower.
-- Returns   see prove_sums_v1. open_quarters: quarter hours that have deltas, or are wrong; unseen_rows: rows of the time
--           whose ids are of another time, so that they were not found. They are counted in the index of organisations.
CREATE FUNCTION callgate_compare_sums_v1(p_orgs text[], p_from timestamptz, p_until timestamptz, p_by_id boolean)
RETURNS TABLE (
    wrong_sums int, drift_nano_usd bigint, wrong_budgets int, calls_with_missing_rows int, rows_without_call int,
    open_quarters timestamptz[], unseen_rows int)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' SET work_mem = '32MB' SET enable_seqscan = off SET enable_hashjoin = off
SET enable_mergejoin = off SET enable_sort = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
DECLARE
    is_day CONSTANT boolean := p_from = date_trunc('day', p_from) AND p_until = p_from + interval '1 day';
    first_id CONSTANT uuid := callgate_uuid_floor_v1(p_from - interval '1 day');
    reaches_to CONSTANT timestamptz := coalesce(
        (SELECT max(m.ends_at) FROM dropped_month m) + interval '1 day', '-infinity');
BEGIN
    RETURN QUERY
    WITH attempts AS MATERIALIZED (
        SELECT callgate_quarter_v1(a.started_at) AS starts_at, a.org_id, a.call_type, a.provider, a.model, a.service_tier,
               a.kind, a.status, a.budget_ids, a.call_id, a.generation, a.attempt, a.posted_nano_usd,
               callgate_bill_unknown_v1(a.status, a.anomalies) AND a.settled_by_hand_at IS NULL AS is_unknown,
               a.input_tokens, a.cached_input_tokens, a.cache_write_tokens, a.cache_write_1h_tokens, a.output_tokens,
               a.reasoning_tokens, a.latency_ms
          FROM (SELECT i.*
                  FROM (SELECT * FROM ai_call_log r
                         WHERE p_by_id AND r.attempt_id >= callgate_uuid_floor_v1(p_from - interval '1 min')
                           AND r.attempt_id < callgate_uuid_floor_v1(p_until + interval '1 min')
                        OFFSET 0) i
                 WHERE i.started_at >= p_from AND i.started_at < p_until AND i.org_id = ANY (p_orgs)
                 UNION ALL
                SELECT l.*
                  FROM unnest(p_orgs) AS o(org_id)
                 CROSS JOIN LATERAL (
                       SELECT * FROM ai_call_log r
                        WHERE r.org_id = o.org_id AND r.started_at >= p_from AND r.started_at < p_until
                          AND r.attempt_id >= first_id
                       OFFSET 0) l
                 WHERE NOT p_by_id) a
    ), there AS (
        SELECT coalesce(sum(l.n), 0) AS n
          FROM unnest(p_orgs) AS o(org_id)
         CROSS JOIN LATERAL (
               SELECT count(*) AS n FROM ai_call_log r
                WHERE r.org_id = o.org_id AND r.started_at >= p_from AND r.started_at < p_until
               OFFSET 0) l
         WHERE p_by_id
    ), quarters AS MATERIALIZED (
        SELECT * FROM quarter_sum q WHERE q.starts_at >= p_from AND q.starts_at < p_until AND q.org_id = ANY (p_orgs)
    ), deltas AS MATERIALIZED (
        SELECT * FROM attempt_delta d WHERE d.starts_at >= p_from AND d.starts_at < p_until AND d.org_id = ANY (p_orgs)
    ), differences AS MATERIALIZED (
        -- What rows say, minus what sums and deltas say: of nearly all keys nothing is left.
        SELECT x.starts_at, abs(sum(x.posted_nano_usd)) AS posted
          FROM (
            SELECT a.starts_at, a.org_id, NULL::text AS project, a.call_type, a.provider, a.model, a.service_tier AS tier,
                   a.kind, a.status AS outcome, 1::bigint AS attempts,
                   CASE WHEN a.attempt = 1 THEN 1::bigint ELSE 0::bigint END AS calls, a.posted_nano_usd,
                   CASE WHEN a.is_unknown THEN 1::bigint ELSE 0::bigint END AS unknown_bills,
                   CASE WHEN a.is_unknown THEN a.posted_nano_usd ELSE 0::bigint END AS unknown_nano_usd,
                   CASE WHEN a.posted_nano_usd > 0 AND a.input_tokens IS NULL THEN 1::bigint ELSE 0::bigint END
                       AS without_tokens,
                   coalesce(a.input_tokens, 0)::bigint AS input_tokens,
                   coalesce(a.cached_input_tokens, 0)::bigint AS cached_input_tokens,
                   coalesce(a.cache_write_tokens, 0)::bigint AS cache_write_tokens,
                   coalesce(a.cache_write_1h_tokens, 0)::bigint AS cache_write_1h_tokens,
                   coalesce(a.output_tokens, 0)::bigint AS output_tokens,
                   coalesce(a.reasoning_tokens, 0)::bigint AS reasoning_tokens,
                   coalesce(a.latency_ms, 0)::bigint AS latency_ms,
                   CASE WHEN a.latency_ms IS NULL THEN 0::bigint ELSE 1::bigint END AS timed, 0::bigint AS collapsed
              FROM attempts a WHERE a.posted_nano_usd IS NOT NULL
            UNION ALL
            SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                   0, 0, 0, 0, 0, collapsed
              FROM callgate_collapsed_v1(p_orgs, p_from, p_until, false)
            UNION ALL
            SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, -attempts, -calls,
               -posted_nano_usd, -unknown_bills, -unknown_nano_usd, -without_tokens, -input_tokens,
               -cached_input_tokens, -cache_write_tokens, -cache_write_1h_tokens, -output_tokens, -reasoning_tokens,
               -latency_ms, -timed, -collapsed
              FROM quarters
            UNION ALL
            SELECT starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, -attempts, -calls,
               -posted_nano_usd, -unknown_bills, -unknown_nano_usd, -without_tokens, -input_tokens,
               -cached_input_tokens, -cache_write_tokens, -cache_write_1h_tokens, -output_tokens, -reasoning_tokens,
               -latency_ms, -timed, -collapsed
              FROM deltas) x
         GROUP BY x.starts_at, x.org_id, x.project, x.call_type, x.provider, x.model, x.tier, x.kind, x.outcome
        HAVING sum(x.attempts) <> 0 OR sum(x.calls) <> 0 OR sum(x.posted_nano_usd) <> 0 OR sum(x.unknown_bills) <> 0
               OR sum(x.unknown_nano_usd) <> 0 OR sum(x.without_tokens) <> 0 OR sum(x.input_tokens) <> 0 OR
               sum(x.cached_input_tokens) <> 0 OR sum(x.cache_write_tokens) <> 0 OR sum(x.cache_write_1h_tokens) <> 0
               OR sum(x.output_tokens) <> 0 OR sum(x.reasoning_tokens) <> 0 OR sum(x.latency_ms) <> 0 OR sum(x.timed)
               <> 0 OR sum(x.collapsed) <> 0
        UNION ALL
        SELECT p_from, abs(sum(x.posted)) FROM (
            SELECT org_id, project, call_type, provider, model, tier, kind, outcome, attempts, posted_nano_usd AS
                   posted, saved_nano_usd FROM quarters
            UNION ALL
            SELECT org_id, project, call_type, provider, model, tier, kind, outcome, -attempts, -posted_nano_usd,
                   -saved_nano_usd
              FROM day_sum y WHERE y.day = p_from::date AND y.org_id = ANY (p_orgs)
        ) x
         WHERE is_day GROUP BY x.org_id, x.project, x.call_type, x.provider, x.model, x.tier, x.kind, x.outcome
        HAVING sum(x.attempts) <> 0 OR sum(x.posted) <> 0 OR sum(x.saved_nano_usd) <> 0
    ), budgets AS (
        SELECT 1 FROM (
            SELECT u.budget_id, s.posted
              FROM (SELECT a.budget_ids, sum(a.posted_nano_usd) AS posted FROM attempts a
                     WHERE a.posted_nano_usd IS NOT NULL GROUP BY a.budget_ids) s
             CROSS JOIN LATERAL unnest(s.budget_ids) AS u(budget_id)
            UNION ALL
            SELECT u.budget_id, -d.posted_nano_usd
              FROM deltas d CROSS JOIN LATERAL unnest(d.budget_ids) AS u(budget_id)
            UNION ALL
            SELECT b.budget_id, -b.posted_nano_usd FROM budget_sum b WHERE b.day = p_from::date
        ) x WHERE is_day GROUP BY x.budget_id HAVING sum(x.posted) <> 0
    ), calls AS (
        SELECT k.call_id, k.generation, max(k.n) AS n, max(k.numbers) AS numbers, max(k.attempt) AS attempt,
               max(k.created_at) AS created_at
          FROM (
            SELECT a.call_id, a.generation, count(*) AS n,
                   bit_or(CASE WHEN a.attempt BETWEEN 1 AND 62 THEN 1::bigint << a.attempt - 1 ELSE 0 END) AS numbers,
                   NULL::int AS attempt, NULL::timestamptz AS created_at
              FROM attempts a GROUP BY a.call_id, a.generation
            UNION ALL
            SELECT c.call_id, c.generation, 0, 0, c.attempt, c.created_at
              FROM (SELECT l.call_id, l.generation, l.org_id, l.attempt, l.created_at FROM llm_call l
                     WHERE l.generation > 0 AND l.created_at >= p_from AND l.created_at < p_until
                    OFFSET 0) c
             WHERE c.org_id = ANY (p_orgs)) k
         GROUP BY k.call_id, k.generation
    ), known AS (
        -- Calls that were created at another time are looked up one by one.
        SELECT k.call_id, k.generation, k.n, k.numbers, coalesce(k.attempt, l.attempt) AS attempt,
               coalesce(k.created_at, l.created_at) AS created_at
          FROM calls k
          LEFT JOIN LATERAL (SELECT o.attempt, o.created_at FROM llm_call o
                              WHERE k.attempt IS NULL AND o.call_id = k.call_id AND o.generation = k.generation
                             OFFSET 0) l ON true
    ), missing AS (
        SELECT count(*) FILTER (WHERE k.attempt IS NOT NULL AND (
                   w.n <> w.numbers OR w.newest > k.attempt OR k.created_at >= reaches_to AND w.n <> k.attempt)) AS calls,
               coalesce(sum(k.n) FILTER (WHERE k.attempt IS NULL), 0) AS rows
          FROM known k
          LEFT JOIN LATERAL (
               -- All rows of a call are looked for only if those of this time are not exactly the attempts 1 to n.
               SELECT count(*) AS n, count(DISTINCT a.attempt) AS numbers, coalesce(max(a.attempt), 0) AS newest
                 FROM ai_call_log a
                WHERE a.call_id = k.call_id AND a.generation = k.generation
                  AND a.attempt_id >= callgate_uuid_floor_v1(k.created_at - interval '1 day')
               OFFSET 0) w ON true
         WHERE k.attempt IS NULL OR k.n <> k.attempt OR k.n > 62
            OR k.numbers <> (1::bigint << least(k.n, 62)::int) - 1
    )
    SELECT (SELECT count(*) FROM differences)::int, (SELECT coalesce(sum(d.posted), 0) FROM differences d)::bigint,
           (SELECT count(*) FROM budgets)::int, m.calls::int, m.rows::int,
           ARRAY(SELECT f.starts_at FROM differences f UNION SELECT d.starts_at FROM deltas d),
           CASE WHEN p_by_id THEN (SELECT t.n FROM there t) - (SELECT count(*) FROM attempts) ELSE 0 END::int
      FROM missing m;
END $$;
