-- One day of made-up history. The seeder replaces the names in braces.

CREATE TEMP TABLE made_call ON COMMIT DROP AS
SELECT gen_random_uuid() AS call_id, c.n, c.org_id, c.created_at, c.call_type, c.attempts,
       (ARRAY['openai', 'openai', 'anthropic', 'anthropic', 'mistral'])[c.model_no] AS provider,
       (ARRAY['gpt-4o-mini', 'gpt-4o', 'claude-sonnet-4-5', 'claude-haiku-4-5', 'mistral-small'])[c.model_no] AS model,
       CASE WHEN c.end_chance < {dead_share} THEN 'dead' ELSE 'succeeded' END AS state,
       b.day_id, b.month_id
  FROM (SELECT o.*,
               -- An organisation has two call types and two models.
               (ARRAY['extraction', 'summary', 'triage', 'chat', 'translation'])[
                   1 + (abs(hashtext(o.org_id)) + (o.chance < 0.3)::int) % 5] AS call_type,
               1 + (abs(hashtext(o.org_id || 'm')) + (o.end_chance < 0.4)::int) % 5 AS model_no
          FROM (SELECT n, 'org-' || lpad((1 + floor({orgs} * power(random(), 3)))::text, 4, '0') AS org_id,
               -- Most of it within the working day of Europe.
               timestamptz '{day}' + make_interval(secs => 86399 * ((random() + random() + random()) / 3)) AS created_at,
               1 + floor(random() * (2 * {attempts_mean} - 1))::int AS attempts, random() AS chance,
               random() AS end_chance
          FROM generate_series(1, {calls}) n) o) c
  JOIN made_budget b USING (org_id);

INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, attempt, attempt_id, call_type, provider, model,
                      input_token_bound, error, error_fingerprint, end_reason, created_at, rank_at)
SELECT call_id, 1, org_id, sha256(call_id::text::bytea), state, attempts,
       -- As the log has it below.
       (lpad(to_hex(floor(extract(epoch FROM created_at + (attempts - 1) * interval '41 s') * 1000)::bigint), 12, '0')
            || '7' || substr(md5(call_id::text || attempts), 1, 3) || '8'
            || substr(md5(call_id::text || attempts), 4, 15))::uuid, call_type, provider, model, 2000,
       CASE WHEN state = 'dead' THEN '{"code": "provider_error", "message": "the provider answered with HTTP 500"}' END,
       CASE WHEN state = 'dead' THEN substr(md5(provider || model || n % 3), 1, 12) END,
       CASE WHEN state = 'dead' THEN 'provider_error' END, created_at, created_at
  FROM made_call ORDER BY created_at;

INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, created_at)
SELECT gen_random_uuid(), c.org_id, c.call_id, 1,
       CASE WHEN s = 1 THEN 'created' WHEN c.state = 'dead' THEN 'failed' WHEN s % 2 = 0 THEN 'joined' ELSE 'replayed' END,
       c.created_at + (s - 1) * interval '7 s'
  FROM made_call c CROSS JOIN LATERAL generate_series(1, 1 + (random() < 0.2)::int * (1 + floor(random() * 3)::int)) s;

INSERT INTO ai_call_log (
    attempt_id, call_id, generation, attempt, org_id, input_hash, call_type, provider, model, status, hold_nano_usd,
    posted_nano_usd, budget_ids, input_tokens, cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens,
    cache_write_1h_tokens, price_source, service_tier, latency_ms, queue_ms, provider_request_id, error_json, worker_id,
    started_at, finished_at, posted_at, kind, anomalies, health)
SELECT (lpad(to_hex(floor(extract(epoch FROM a.at) * 1000)::bigint), 12, '0') || '7' || substr(a.random, 1, 3) || '8'
            || substr(a.random, 4, 15))::uuid,
       a.call_id, 1, a.no, a.org_id, sha256(a.call_id::text::bytea), a.call_type, a.provider, a.model, a.status, 4000000,
       CASE a.status WHEN 'succeeded' THEN a.cost WHEN 'unknown' THEN 4000000 ELSE a.is_paid::int * a.cost END,
       ARRAY[a.day_id, a.month_id],
       CASE WHEN a.has_usage THEN a.tokens END, CASE WHEN a.has_usage THEN a.tokens / 4 END,
       CASE WHEN a.has_usage THEN 0 END, CASE WHEN a.has_usage THEN a.tokens / 6 END,
       CASE WHEN a.has_usage THEN 0 END, CASE WHEN a.has_usage THEN 0 END, 'seed',
       CASE WHEN a.has_usage THEN 'default' END, CASE WHEN a.status <> 'unknown' THEN 200 + a.tokens END, 12,
       'req_' || a.random, CASE WHEN a.status <> 'succeeded' THEN '{"code": "rate_limited", "message": "HTTP 429"}' END,
       'seed/' || a.no, a.at, CASE WHEN a.status <> 'unknown' THEN a.at + interval '2 s' END, a.at + interval '3 s',
       CASE WHEN a.no = 1 THEN 'first' WHEN a.chance < 0.05 THEN 'repair' ELSE 'retry' END, '{}', 'alive'
  FROM (SELECT t.*, t.status = 'succeeded' OR t.is_paid AND t.status = 'failed' AS has_usage, t.tokens * 150 AS cost
          FROM (SELECT c.*, no, c.created_at + (no - 1) * interval '41 s' AS at, md5(c.call_id::text || no) AS random,
                       200 + floor(random() * 1800)::int AS tokens, x.chance, x.chance < 0.1 AS is_paid,
                       CASE WHEN no = c.attempts AND c.state = 'succeeded' THEN 'succeeded'
                            WHEN x.chance > 0.998 THEN 'unknown' ELSE 'failed' END AS status
                  FROM made_call c CROSS JOIN LATERAL generate_series(1, c.attempts) no
                 CROSS JOIN LATERAL (SELECT random() AS chance WHERE no > 0) x) t) a
 ORDER BY a.at;
