-- Indexes along which operators look for calls: newest first, by state, reason, fingerprint and trace.
--
-- Each call has a generation over 0. The planner uses an index of all calls only for a statement that says so: `>= 0` for
-- the calls of one organisation, `> 0` for any list. Else it would choose them, with some statistics, for what workers do
-- all the time, which would then read all calls.

DROP INDEX ix_llm_call_org;
CREATE INDEX ix_llm_call_org ON llm_call (org_id, created_at DESC) WHERE generation >= 0;
CREATE INDEX ix_llm_call_created ON llm_call (created_at) WHERE generation > 0;
CREATE INDEX ix_llm_call_stuck ON llm_call (state, created_at)
    WHERE state IN ('waiting', 'dead', 'rejected') AND generation > 0;
CREATE INDEX ix_llm_call_stuck_org ON llm_call (org_id, state, created_at)
    WHERE state IN ('waiting', 'dead', 'rejected') AND generation > 0;
CREATE INDEX ix_llm_call_reason ON llm_call (coalesce(wait_reason, end_reason), created_at)
    WHERE state IN ('waiting', 'dead', 'rejected') AND generation > 0;
CREATE INDEX ix_llm_call_fingerprint ON llm_call (error_fingerprint, created_at)
    WHERE state IN ('waiting', 'dead', 'rejected') AND error_fingerprint IS NOT NULL AND generation > 0;
CREATE INDEX ix_operator_action_subject ON operator_action (subject);
CREATE INDEX ix_ai_call_log_trace ON ai_call_log (trace_id) WHERE trace_id IS NOT NULL;
