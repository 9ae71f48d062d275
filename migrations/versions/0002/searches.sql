-- Indexes along which operators look for calls: newest first, by state, reason, fingerprint and trace.

CREATE INDEX ix_llm_call_created ON llm_call (created_at);
CREATE INDEX ix_llm_call_stuck ON llm_call (state, created_at) WHERE state IN ('waiting', 'dead', 'rejected');
CREATE INDEX ix_llm_call_stuck_org ON llm_call (org_id, state, created_at) WHERE state IN ('waiting', 'dead', 'rejected');
CREATE INDEX ix_llm_call_reason ON llm_call (coalesce(wait_reason, end_reason), created_at)
    WHERE state IN ('waiting', 'dead', 'rejected');
CREATE INDEX ix_llm_call_fingerprint ON llm_call (error_fingerprint, created_at)
    WHERE state IN ('waiting', 'dead', 'rejected') AND error_fingerprint IS NOT NULL;
CREATE INDEX ix_operator_action_subject ON operator_action (subject);
CREATE INDEX ix_ai_call_log_trace ON ai_call_log (trace_id) WHERE trace_id IS NOT NULL;
