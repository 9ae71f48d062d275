-- callgate_note_posting_v1: append to attempt_delta what a changed attempt adds to the sums: minus what it was, plus what
-- it is. A trigger of ai_call_log, so that no statement can post without it: neither one of processes of 0.1.0, nor one
-- by hand.
--
-- posted_v1 computes the same from rows. The insert has no plan to choose: it costs a few microseconds.
-- Locks     nothing.
CREATE FUNCTION callgate_note_posting_v1() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    is_unknown boolean;
BEGIN
    IF OLD.posted_nano_usd IS NOT NULL THEN
        is_unknown := callgate_bill_unknown_v1(OLD.status, OLD.anomalies) AND OLD.settled_by_hand_at IS NULL;
        INSERT INTO attempt_delta (
            starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, budget_ids, attempts, calls,
            posted_nano_usd, unknown_bills, unknown_nano_usd, without_tokens, input_tokens, cached_input_tokens,
            cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, latency_ms, timed
        ) VALUES (
            callgate_quarter_v1(OLD.started_at), OLD.org_id, NULL, OLD.call_type, OLD.provider, OLD.model,
                   OLD.service_tier,
            OLD.kind, OLD.status, OLD.budget_ids, -1, CASE WHEN OLD.attempt = 1 THEN -1 ELSE 0 END,
                   -OLD.posted_nano_usd,
            CASE WHEN is_unknown THEN -1 ELSE 0 END, CASE WHEN is_unknown THEN -OLD.posted_nano_usd ELSE 0 END,
            CASE WHEN OLD.posted_nano_usd > 0 AND OLD.input_tokens IS NULL THEN -1 ELSE 0 END,
            -coalesce(OLD.input_tokens, 0), -coalesce(OLD.cached_input_tokens, 0), -coalesce(OLD.cache_write_tokens,
            0), -coalesce(OLD.cache_write_1h_tokens, 0), -coalesce(OLD.output_tokens, 0),
            -coalesce(OLD.reasoning_tokens, 0), -coalesce(OLD.latency_ms, 0), CASE WHEN OLD.latency_ms IS NULL THEN 0
            ELSE -1 END);
    END IF;
    IF NEW.posted_nano_usd IS NOT NULL THEN
        is_unknown := callgate_bill_unknown_v1(NEW.status, NEW.anomalies) AND NEW.settled_by_hand_at IS NULL;
        INSERT INTO attempt_delta (
            starts_at, org_id, project, call_type, provider, model, tier, kind, outcome, budget_ids, attempts, calls,
            posted_nano_usd, unknown_bills, unknown_nano_usd, without_tokens, input_tokens, cached_input_tokens,
            cache_write_tokens, cache_write_1h_tokens, output_tokens, reasoning_tokens, latency_ms, timed
        ) VALUES (
            callgate_quarter_v1(NEW.started_at), NEW.org_id, NULL, NEW.call_type, NEW.provider, NEW.model,
                   NEW.service_tier,
            NEW.kind, NEW.status, NEW.budget_ids, 1, CASE WHEN NEW.attempt = 1 THEN 1 ELSE 0 END, NEW.posted_nano_usd,
            CASE WHEN is_unknown THEN 1 ELSE 0 END, CASE WHEN is_unknown THEN NEW.posted_nano_usd ELSE 0 END,
            CASE WHEN NEW.posted_nano_usd > 0 AND NEW.input_tokens IS NULL THEN 1 ELSE 0 END,
            coalesce(NEW.input_tokens, 0), coalesce(NEW.cached_input_tokens, 0), coalesce(NEW.cache_write_tokens, 0),
            coalesce(NEW.cache_write_1h_tokens, 0), coalesce(NEW.output_tokens, 0), coalesce(NEW.reasoning_tokens, 0),
            coalesce(NEW.latency_ms, 0), CASE WHEN NEW.latency_ms IS NULL THEN 0 ELSE 1 END);
    END IF;
    RETURN NULL;
END $$;
