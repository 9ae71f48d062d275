-- The tables of redrives.

CREATE TABLE redrive (
    id UUID NOT NULL,
    state TEXT DEFAULT 'planning' NOT NULL,
    cause TEXT,
    selection JSONB NOT NULL,
    planned_by TEXT NOT NULL,
    operator TEXT,
    reason TEXT,
    rate_per_min FLOAT,
    cap_nano_usd BIGINT,
    stop_share FLOAT DEFAULT 0.5 NOT NULL,
    stop_min INTEGER DEFAULT 20 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    step_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    lease_id UUID,
    free_at TIMESTAMP WITH TIME ZONE,
    ended_before INTEGER DEFAULT 0 NOT NULL,
    failed_before INTEGER DEFAULT 0 NOT NULL,
    calls INTEGER DEFAULT 0 NOT NULL,
    unpriced INTEGER DEFAULT 0 NOT NULL,
    pending INTEGER DEFAULT 0 NOT NULL,
    released INTEGER DEFAULT 0 NOT NULL,
    succeeded INTEGER DEFAULT 0 NOT NULL,
    failed INTEGER DEFAULT 0 NOT NULL,
    rejected INTEGER DEFAULT 0 NOT NULL,
    refused INTEGER DEFAULT 0 NOT NULL,
    skipped INTEGER DEFAULT 0 NOT NULL,
    left_alone INTEGER DEFAULT 0 NOT NULL,
    unknown INTEGER DEFAULT 0 NOT NULL,
    worst_case_nano_usd BIGINT DEFAULT 0 NOT NULL,
    open_nano_usd BIGINT DEFAULT 0 NOT NULL,
    posted_nano_usd BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_redrive PRIMARY KEY (id),
    CONSTRAINT ck_redrive_state CHECK (state IN ('planning', 'planned', 'running', 'paused', 'aborted', 'done', 'expired')),
    CONSTRAINT ck_redrive_has_cause CHECK ((state = 'paused') = (cause IS NOT NULL)),
    CONSTRAINT ck_redrive_has_reason CHECK (state NOT IN ('running', 'paused', 'done') OR btrim(reason) <> '' AND btrim(operator) <> '' AND started_at IS NOT NULL),
    CONSTRAINT ck_redrive_cause CHECK (cause IN ('operator', 'failures', 'cap')),
    CONSTRAINT ck_redrive_stops CHECK (stop_share > 0 AND stop_share <= 1 AND stop_min >= 1),
    CONSTRAINT ck_redrive_rate CHECK (rate_per_min > 0),
    CONSTRAINT ck_redrive_cap CHECK (cap_nano_usd >= 0),
    CONSTRAINT ck_redrive_planned_by_is_bounded CHECK (char_length(planned_by) <= 4000),
    CONSTRAINT ck_redrive_operator_is_bounded CHECK (char_length(operator) <= 4000),
    CONSTRAINT ck_redrive_reason_is_bounded CHECK (char_length(reason) <= 4000),
    CONSTRAINT ck_redrive_selection_is_bounded CHECK (octet_length(selection::text) <= 1048576)
);
COMMENT ON TABLE redrive IS 'stored redrives; the sums are those of their calls';
COMMENT ON COLUMN redrive.id IS 'chosen by who planned it';
COMMENT ON COLUMN redrive.cause IS 'why it is paused';
COMMENT ON COLUMN redrive.selection IS 'the filter that chose its calls';
COMMENT ON COLUMN redrive.operator IS 'who started it';
COMMENT ON COLUMN redrive.reason IS 'why it was started';
COMMENT ON COLUMN redrive.rate_per_min IS 'null: as fast as open calls end';
COMMENT ON COLUMN redrive.cap_nano_usd IS 'the most that may be spent; null: no cap';
COMMENT ON COLUMN redrive.ended_at IS 'when no call was pending or open any more';
COMMENT ON COLUMN redrive.step_at IS 'when a worker looks at it';
COMMENT ON COLUMN redrive.lease_id IS 'the newest lease; no other may change calls';
COMMENT ON COLUMN redrive.free_at IS 'when the rate allows the next call';
COMMENT ON COLUMN redrive.ended_before IS 'calls that had ended when it was resumed';
COMMENT ON COLUMN redrive.unknown IS 'pending calls of which an attempt may have been billed';
CREATE INDEX ix_redrive_created_at ON redrive (created_at);
CREATE INDEX ix_redrive_ended_at ON redrive (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX ix_redrive_step ON redrive (step_at) WHERE ended_at IS NULL;

CREATE TABLE redrive_call (
    redrive_id UUID NOT NULL,
    number INTEGER NOT NULL,
    call_id UUID NOT NULL,
    generation INTEGER NOT NULL,
    org_id TEXT NOT NULL,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    outcome TEXT DEFAULT 'pending' NOT NULL,
    code TEXT,
    has_unknown_bill BOOLEAN DEFAULT false NOT NULL,
    worst_case_nano_usd BIGINT,
    input_token_bound INTEGER DEFAULT 0 NOT NULL,
    output_token_bound INTEGER DEFAULT 0 NOT NULL,
    new_generation INTEGER,
    posted_nano_usd BIGINT,
    try_at TIMESTAMP WITH TIME ZONE DEFAULT '1970-01-01 00:00:00+00'::timestamptz NOT NULL,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_redrive_call PRIMARY KEY (redrive_id, number),
    CONSTRAINT uq_redrive_call_redrive_id_call_id UNIQUE (redrive_id, call_id),
    CONSTRAINT ck_redrive_call_state CHECK (state IN ('dead', 'rejected')),
    CONSTRAINT ck_redrive_call_outcome CHECK (outcome IN ('pending', 'released', 'succeeded', 'failed', 'rejected', 'refused', 'skipped', 'left')),
    CONSTRAINT ck_redrive_call_is_released CHECK ((new_generation IS NOT NULL) = (outcome IN ('released', 'succeeded', 'failed', 'rejected'))),
    CONSTRAINT ck_redrive_call_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_redrive_call_call_type_is_bounded CHECK (char_length(call_type) <= 128),
    CONSTRAINT ck_redrive_call_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_redrive_call_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_redrive_call_code_is_bounded CHECK (char_length(code) <= 128)
);
COMMENT ON TABLE redrive_call IS 'the calls of redrives; frozen when a redrive was planned';
COMMENT ON COLUMN redrive_call.number IS 'the oldest call first';
COMMENT ON COLUMN redrive_call.generation IS 'that died or was refused';
COMMENT ON COLUMN redrive_call.state IS 'of that generation';
COMMENT ON COLUMN redrive_call.code IS 'why it was not released, or how its next generation ended';
COMMENT ON COLUMN redrive_call.has_unknown_bill IS 'an attempt may have been billed';
COMMENT ON COLUMN redrive_call.worst_case_nano_usd IS 'of one attempt; null: not priced';
COMMENT ON COLUMN redrive_call.new_generation IS 'that was released';
COMMENT ON COLUMN redrive_call.posted_nano_usd IS 'what the new generation has cost';
COMMENT ON COLUMN redrive_call.try_at IS 'it was locked, or its organisation busy: not before';
CREATE INDEX ix_redrive_call_call ON redrive_call (call_id);
CREATE INDEX ix_redrive_call_unfinished ON redrive_call (redrive_id, outcome, number) WHERE outcome IN ('pending', 'released');
