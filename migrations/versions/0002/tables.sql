-- Provider limits, and what attempts and calls keep of them.

CREATE TABLE flow_catalogue (
    is_only BOOLEAN DEFAULT true NOT NULL,
    digest TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    cautious TEXT[] NOT NULL,
    counting_used TEXT[] DEFAULT '{}' NOT NULL,
    open_calls_max INTEGER NOT NULL,
    published_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_flow_catalogue PRIMARY KEY (is_only),
    CONSTRAINT ck_flow_catalogue_is_one_row CHECK (is_only),
    CONSTRAINT ck_flow_catalogue_open_calls_max_is_positive CHECK (open_calls_max >= 1),
    CONSTRAINT ck_flow_catalogue_digest_is_bounded CHECK (char_length(digest) <= 128),
    CONSTRAINT ck_flow_catalogue_worker_id_is_bounded CHECK (char_length(worker_id) <= 512)
);
COMMENT ON TABLE flow_catalogue IS 'the newest declaration of limits; one row';
COMMENT ON COLUMN flow_catalogue.digest IS 'of the declaration that counts';
COMMENT ON COLUMN flow_catalogue.worker_id IS 'the process that published it';
COMMENT ON COLUMN flow_catalogue.cautious IS 'providers that are not declared unlimited';
COMMENT ON COLUMN flow_catalogue.counting_used IS 'providers whose limits count tokens that were used';
COMMENT ON COLUMN flow_catalogue.open_calls_max IS 'of each organisation; more are refused';

CREATE TABLE flow_rule (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    credential TEXT NOT NULL,
    is_shared BOOLEAN NOT NULL,
    measure TEXT NOT NULL,
    window_s INTEGER NOT NULL,
    amount BIGINT NOT NULL,
    counts_used BOOLEAN NOT NULL,
    CONSTRAINT pk_flow_rule PRIMARY KEY (id),
    CONSTRAINT uq_flow_rule_provider_model_credential_measure_window_s
        UNIQUE (provider, model, credential, measure, window_s),
    CONSTRAINT ck_flow_rule_measure CHECK (measure IN ('requests', 'input_tokens', 'output_tokens', 'tokens', 'concurrency')),
    CONSTRAINT ck_flow_rule_is_positive CHECK (amount >= 1 AND window_s >= 0),
    CONSTRAINT ck_flow_rule_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_flow_rule_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_flow_rule_credential_is_bounded CHECK (char_length(credential) <= 128)
);
COMMENT ON TABLE flow_rule IS 'limits as the newest catalogue declares them';
COMMENT ON COLUMN flow_rule.model IS 'a pattern';
COMMENT ON COLUMN flow_rule.credential IS 'an organisation, empty, or * for every own key';
COMMENT ON COLUMN flow_rule.is_shared IS 'one limit for all models that match';
COMMENT ON COLUMN flow_rule.counts_used IS 'tokens that were used, not asked for';

CREATE TABLE flow_limit (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    credential TEXT NOT NULL,
    source TEXT NOT NULL,
    measure TEXT NOT NULL,
    window_s INTEGER NOT NULL,
    amount BIGINT NOT NULL,
    is_shared BOOLEAN NOT NULL,
    counts_used BOOLEAN NOT NULL,
    level DOUBLE PRECISION NOT NULL,
    leveled_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    largest BIGINT DEFAULT 0 NOT NULL,
    largest_at TIMESTAMP WITH TIME ZONE,
    granted_at TIMESTAMP WITH TIME ZONE,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    rise_per_s DOUBLE PRECISION DEFAULT 0 NOT NULL,
    CONSTRAINT pk_flow_limit PRIMARY KEY (id),
    CONSTRAINT uq_flow_limit_provider_model_credential_source_measure_window_s
        UNIQUE (provider, model, credential, source, measure, window_s),
    CONSTRAINT ck_flow_limit_measure CHECK (measure IN ('requests', 'input_tokens', 'output_tokens', 'tokens', 'concurrency')),
    CONSTRAINT ck_flow_limit_source CHECK (source IN ('declared', 'learned', 'observed')),
    CONSTRAINT ck_flow_limit_is_positive CHECK (amount >= 1 AND window_s >= 0 AND largest >= 0),
    CONSTRAINT ck_flow_limit_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_flow_limit_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_flow_limit_credential_is_bounded CHECK (char_length(credential) <= 128)
) WITH (fillfactor = 50);
COMMENT ON TABLE flow_limit IS 'a provider''s limit of a key, and how full its bucket is';
COMMENT ON COLUMN flow_limit.model IS 'a model; a pattern if it is shared';
COMMENT ON COLUMN flow_limit.credential IS 'an organisation, or empty';
COMMENT ON COLUMN flow_limit.source IS 'declared, learned or observed';
COMMENT ON COLUMN flow_limit.level IS 'what could be used at leveled_at';
COMMENT ON COLUMN flow_limit.granted_at IS 'when an attempt last took from it';
COMMENT ON COLUMN flow_limit.changed_at IS 'when the amount was last declared, confirmed, or observed';
COMMENT ON COLUMN flow_limit.rise_per_s IS 'how fast an observed amount rises';
CREATE INDEX ix_flow_limit_shared ON flow_limit (provider, credential) WHERE is_shared;

CREATE TABLE flow_note (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    limit_id BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    CONSTRAINT pk_flow_note PRIMARY KEY (id),
    CONSTRAINT ck_flow_note_is_positive CHECK (tokens > 0)
);
COMMENT ON TABLE flow_note IS 'what settlements give back to limits; the next claim adds it';
COMMENT ON COLUMN flow_note.tokens IS 'not used by an answer';
CREATE INDEX ix_flow_note_limit ON flow_note (limit_id);

CREATE TABLE flow_share (
    breaker_id BIGINT NOT NULL,
    org_id TEXT NOT NULL,
    share DOUBLE PRECISION NOT NULL,
    noted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    fades_s DOUBLE PRECISION NOT NULL,
    CONSTRAINT pk_flow_share PRIMARY KEY (breaker_id, org_id),
    CONSTRAINT ck_flow_share_org_id_is_bounded CHECK (char_length(org_id) <= 128)
) WITH (fillfactor = 50);
COMMENT ON TABLE flow_share IS 'how much organisations took recently from the limits of a key';
COMMENT ON COLUMN flow_share.breaker_id IS 'the shared breaker of the key';
COMMENT ON COLUMN flow_share.share IS 'parts of a limit; fades with time';
COMMENT ON COLUMN flow_share.fades_s IS 'after so long about a third of it counts';

CREATE TABLE flow_open (
    org_id TEXT NOT NULL,
    counted_at TIMESTAMP WITH TIME ZONE NOT NULL,
    calls INTEGER NOT NULL,
    CONSTRAINT pk_flow_open PRIMARY KEY (org_id, counted_at),
    CONSTRAINT ck_flow_open_not_negative CHECK (calls >= 0),
    CONSTRAINT ck_flow_open_org_id_is_bounded CHECK (char_length(org_id) <= 128)
);
COMMENT ON TABLE flow_open IS 'how many open calls organisations had that have many; the newest count is used';

CREATE TABLE flow_concurrency (
    calls_of TEXT NOT NULL,
    name TEXT NOT NULL,
    amount INTEGER,
    CONSTRAINT pk_flow_concurrency PRIMARY KEY (calls_of, name),
    CONSTRAINT ck_flow_concurrency_calls_of CHECK (calls_of IN ('organisation', 'call_type')),
    CONSTRAINT ck_flow_concurrency_is_positive CHECK (amount >= 1),
    CONSTRAINT ck_flow_concurrency_name_is_bounded CHECK (char_length(name) <= 128)
);
COMMENT ON TABLE flow_concurrency IS 'how many calls of one organisation may run at a time, as the newest catalogue declares it';
COMMENT ON COLUMN flow_concurrency.calls_of IS 'organisation: all its calls; call_type: those of one type, of each organisation';
COMMENT ON COLUMN flow_concurrency.name IS 'empty: each that has no row of its own';
COMMENT ON COLUMN flow_concurrency.amount IS 'null: any number';

CREATE TABLE flow_org (
    org_id TEXT NOT NULL,
    CONSTRAINT pk_flow_org PRIMARY KEY (org_id),
    CONSTRAINT ck_flow_org_org_id_is_bounded CHECK (char_length(org_id) <= 128)
);
COMMENT ON TABLE flow_org IS 'organisations whose running calls are counted; a claim locks the row';

ALTER TABLE breaker ADD COLUMN in_flight_max INTEGER, ADD COLUMN grown_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN cause TEXT, ADD COLUMN error_fingerprint TEXT,
    ADD CONSTRAINT ck_breaker_cause_is_bounded CHECK (char_length(cause) <= 4000),
    ADD CONSTRAINT ck_breaker_error_fingerprint_is_bounded CHECK (char_length(error_fingerprint) <= 128);
COMMENT ON COLUMN breaker.cause IS 'what exactly failed, in callgate''s own words';
COMMENT ON COLUMN breaker.error_fingerprint IS 'of the failure that opened it';
COMMENT ON COLUMN breaker.in_flight_max IS 'attempts under way at most; null: any number';
COMMENT ON COLUMN breaker.grown_at IS 'when that number last changed';

ALTER TABLE worker_lease ADD COLUMN limits_digest TEXT, ADD COLUMN slots INTEGER,
    ADD CONSTRAINT ck_worker_lease_slots_not_negative CHECK (slots >= 0),
    ADD CONSTRAINT ck_worker_lease_limits_digest_is_bounded CHECK (char_length(limits_digest) <= 128);
COMMENT ON COLUMN worker_lease.limits_digest IS 'of the declaration of provider limits it published';
COMMENT ON COLUMN worker_lease.slots IS 'how many calls it runs at a time; null: it does not say';

ALTER TABLE llm_call ADD COLUMN output_token_bound INTEGER,
    ADD COLUMN priority SMALLINT DEFAULT 1 NOT NULL,
    ADD COLUMN rank_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    ADD COLUMN start_before TIMESTAMP WITH TIME ZONE,
    ADD COLUMN lane TEXT,
    ADD COLUMN is_in_line BOOLEAN DEFAULT false NOT NULL,
    ADD COLUMN traceparent TEXT, ADD CONSTRAINT ck_llm_call_traceparent_is_bounded CHECK (octet_length(traceparent) <= 55),
    ADD CONSTRAINT ck_llm_call_lane CHECK (lane IN ('call', 'express')),
    ADD CONSTRAINT ck_llm_call_priority CHECK (priority BETWEEN 0 AND 2),
    DROP CONSTRAINT ck_llm_call_wait_reason,
    ADD CONSTRAINT ck_llm_call_wait_reason CHECK (wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider',
        'quarantine', 'memory', 'locked', 'rate_limited',
        'backlog', 'paused', 'concurrency_limited'));
COMMENT ON COLUMN llm_call.wait_until IS 'until when it may wait for its provider, a place, held money, or paused';
COMMENT ON COLUMN llm_call.traceparent IS 'the span of the submission that created it';
COMMENT ON COLUMN llm_call.is_in_line IS 'it waits for a place of its organisation, from refusal to claim';
DROP INDEX ix_llm_call_breaker;
CREATE INDEX ix_llm_call_breaker ON llm_call (breaker_id, org_id, rank_at) WHERE breaker_id IS NOT NULL;
CREATE INDEX ix_llm_call_backlog ON llm_call (org_id, rank_at) WHERE wait_reason = 'backlog';
CREATE INDEX ix_llm_call_in_line ON llm_call (org_id, hashtext(call_type), call_type, provider, model, rank_at)
    WHERE is_in_line AND (state = 'queued' OR wait_reason = 'concurrency_limited');
CREATE INDEX ix_llm_call_woken ON llm_call (org_id, due_at)
    WHERE is_in_line AND (state = 'queued' OR wait_reason = 'concurrency_limited');
CREATE INDEX ix_llm_call_open_org ON llm_call (state, org_id, priority) WHERE state IN ('queued', 'running', 'waiting');
COMMENT ON COLUMN llm_call.priority IS '0 bulk, 1 normal, 2 interactive';
COMMENT ON COLUMN llm_call.rank_at IS 'the earliest comes first';
COMMENT ON COLUMN llm_call.start_before IS 'it is not sent later';
COMMENT ON COLUMN llm_call.lane IS 'where it was published last; null: call';
COMMENT ON COLUMN llm_call.output_token_bound IS 'what it takes from limits of output tokens';

ALTER TABLE ai_call_log ADD COLUMN limit_ids BIGINT[] DEFAULT '{}' NOT NULL,
    ADD COLUMN output_token_bound INTEGER,
    ADD COLUMN health TEXT,
    ADD COLUMN cache_write_1h_tokens INTEGER,
    ADD CONSTRAINT ck_ai_call_log_health CHECK (health IN ('alive', 'failed', 'key_refused', 'limited', 'neutral')),
    DROP CONSTRAINT ck_ai_call_log_kind,
    ADD CONSTRAINT ck_ai_call_log_kind CHECK (kind IN ('call', 'first', 'retry', 'probe', 'repair'));
COMMENT ON COLUMN ai_call_log.limit_ids IS 'the provider limits it took from';
COMMENT ON COLUMN ai_call_log.output_token_bound IS 'what it took from limits of output tokens';
COMMENT ON COLUMN ai_call_log.cache_write_1h_tokens IS 'the part of cache_write_tokens that is kept for an hour';
COMMENT ON COLUMN ai_call_log.health IS 'what it says about its provider; limited: it does not count';
CREATE INDEX ix_ai_call_log_in_flight ON ai_call_log (provider, credential, model) WHERE posted_nano_usd IS NULL;

CREATE TABLE pause (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    call_type TEXT NOT NULL,
    org_id TEXT NOT NULL,
    is_freeze BOOLEAN NOT NULL,
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_pause PRIMARY KEY (id),
    CONSTRAINT uq_pause_provider_model_call_type_org_id_is_freeze
        UNIQUE (provider, model, call_type, org_id, is_freeze),
    CONSTRAINT ck_pause_freeze_is_of_one_org
        CHECK (NOT is_freeze OR org_id <> '' AND provider = '' AND model = '' AND call_type = ''),
    CONSTRAINT ck_pause_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_pause_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_pause_call_type_is_bounded CHECK (char_length(call_type) <= 128),
    CONSTRAINT ck_pause_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_pause_operator_is_bounded CHECK (char_length(operator) <= 4000),
    CONSTRAINT ck_pause_reason_is_bounded CHECK (char_length(reason) <= 4000)
);
COMMENT ON TABLE pause IS 'calls that are not sent, until an operator resumes them';
COMMENT ON COLUMN pause.provider IS 'empty: any; as the other names';
COMMENT ON COLUMN pause.is_freeze IS 'new submissions are refused too';
CREATE INDEX ix_llm_call_paused ON llm_call (org_id, call_type, provider, model, rank_at) WHERE wait_reason = 'paused';

CREATE TABLE ledger_figures (
    is_only BOOLEAN DEFAULT true NOT NULL,
    read_at TIMESTAMP WITH TIME ZONE NOT NULL,
    figures JSON NOT NULL,
    CONSTRAINT pk_ledger_figures PRIMARY KEY (is_only),
    CONSTRAINT ck_ledger_figures_is_one_row CHECK (is_only)
);
COMMENT ON TABLE ledger_figures IS 'the newest figures for metrics; one row';
COMMENT ON COLUMN ledger_figures.figures IS 'each as name, labels, value';
CREATE INDEX ix_budget_ends_at ON budget (ends_at);
CREATE INDEX ix_operator_action_operator ON operator_action (operator, id);
