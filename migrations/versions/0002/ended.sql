-- By what operators look for calls that ended without an answer, and for links that were given up. searches.sql says what
-- `generation > 0` is for.

CREATE INDEX ix_llm_call_dead_group ON llm_call (coalesce(error_fingerprint, ''), created_at)
    WHERE state = 'dead' AND generation > 0;
CREATE INDEX ix_llm_call_discarded_group ON llm_call (coalesce(error_fingerprint, ''), created_at)
    WHERE end_reason = 'discarded' AND generation > 0;
CREATE INDEX ix_llm_call_rejected_group ON llm_call (end_reason, created_at) WHERE state = 'rejected' AND generation > 0;
CREATE INDEX ix_submission_given_up ON submission (given_up_at) WHERE given_up_at IS NOT NULL;
