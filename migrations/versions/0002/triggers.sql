-- Who keeps the sums from now on, and what they lack: days of before.

CREATE TRIGGER note_posting AFTER UPDATE ON ai_call_log FOR EACH ROW
    WHEN ((OLD.posted_nano_usd IS NOT NULL OR NEW.posted_nano_usd IS NOT NULL) AND (
        OLD.started_at, OLD.org_id, OLD.call_type, OLD.provider, OLD.model, OLD.service_tier, OLD.kind,
        OLD.status, OLD.budget_ids, OLD.attempt, OLD.posted_nano_usd, OLD.anomalies, OLD.settled_by_hand_at,
        OLD.input_tokens, OLD.cached_input_tokens, OLD.cache_write_tokens, OLD.cache_write_1h_tokens,
        OLD.output_tokens, OLD.reasoning_tokens, OLD.latency_ms)
        IS DISTINCT FROM (
        NEW.started_at, NEW.org_id, NEW.call_type, NEW.provider, NEW.model, NEW.service_tier, NEW.kind,
        NEW.status, NEW.budget_ids, NEW.attempt, NEW.posted_nano_usd, NEW.anomalies, NEW.settled_by_hand_at,
        NEW.input_tokens, NEW.cached_input_tokens, NEW.cache_write_tokens, NEW.cache_write_1h_tokens,
        NEW.output_tokens, NEW.reasoning_tokens, NEW.latency_ms))
    EXECUTE FUNCTION callgate_note_posting_v1();
CREATE TRIGGER note_collapsed AFTER INSERT ON submission FOR EACH ROW
    WHEN (NEW.outcome IN ('joined', 'replayed', 'failed'))
    EXECUTE FUNCTION callgate_note_collapsed_v1();
-- A submission that owns an idempotency key is stored before its outcome is known.
CREATE TRIGGER note_collapsed_later AFTER UPDATE OF outcome ON submission FOR EACH ROW
    WHEN (NEW.outcome IN ('joined', 'replayed', 'failed') AND OLD.outcome = 'created')
    EXECUTE FUNCTION callgate_note_collapsed_v1();

-- Whatever is settled from here on appends its deltas. Rows of before are summed up day by day, by fill_sums_v1.
INSERT INTO sum_gap (day)
SELECT d.day::date FROM (
    SELECT greatest(min(least(
               (SELECT a.started_at FROM ai_call_log a WHERE a.org_id = o.org_id ORDER BY a.started_at LIMIT 1),
               (SELECT c.created_at FROM llm_call c WHERE c.org_id = o.org_id ORDER BY c.created_at LIMIT 1))),
               (SELECT max(m.ends_at) FROM dropped_month m)) AS first_at
      FROM unnest(callgate_sum_orgs_v1()) AS o(org_id)
  ) x CROSS JOIN LATERAL generate_series(
      date_trunc('day', x.first_at, 'UTC') AT TIME ZONE 'UTC', date_trunc('day', now(), 'UTC') AT TIME ZONE 'UTC',
      interval '1 day') AS d(day);
