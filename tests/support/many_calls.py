"""SQL that stores many calls at once."""

WORK = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, attempt, attempt_id, requested_hold_nano_usd, wait_reason)
SELECT gen_random_uuid(), 1, :org, sha256('x'), :state, now(), 'extraction', 'openai', 'm', 1, 0,
       CASE :state WHEN 'running' THEN gen_random_uuid() END, :hold, CASE :state WHEN 'waiting' THEN 'retry' END
  FROM generate_series(1, :count)"""
WAIT = """INSERT INTO llm_call (call_id, generation, org_id, input_hash, state, due_at, call_type, provider, model,
                      input_token_bound, wait_reason, is_in_line, breaker_id)
SELECT gen_random_uuid(), 1, :org, sha256('x'), 'waiting', now() + interval '1 h', 'extraction', 'openai',
       'gpt-4o-mini', 1, :wait, :wait = 'concurrency_limited',
       CASE :wait WHEN 'rate_limited' THEN (SELECT min(b.id) FROM breaker b WHERE b.org_id = '') END
  FROM generate_series(1, :count)"""
