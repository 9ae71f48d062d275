-- The tables of the ledger, as SQLAlchemy renders callgate/adapters/postgres/tables: times are UTC, money is nano-USD.

CREATE TABLE llm_call (
    call_id UUID NOT NULL,
    generation INTEGER NOT NULL,
    org_id TEXT NOT NULL,
    input_hash BYTEA NOT NULL,
    state TEXT NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    attempt INTEGER DEFAULT 0 NOT NULL,
    attempt_id UUID,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    input_token_bound INTEGER NOT NULL,
    request BYTEA,
    error TEXT,
    error_fingerprint TEXT,
    requested_hold_nano_usd BIGINT,
    sweeps INTEGER DEFAULT 0 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    wait_reason TEXT,
    end_reason TEXT,
    breaker_id BIGINT,
    wait_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_llm_call PRIMARY KEY (call_id, generation),
    CONSTRAINT ck_llm_call_generation_starts_at_1 CHECK (generation >= 1),
    CONSTRAINT ck_llm_call_attempt_not_negative CHECK (attempt >= 0),
    CONSTRAINT ck_llm_call_state CHECK (state IN ('queued', 'running', 'waiting', 'succeeded', 'dead', 'rejected')),
    CONSTRAINT ck_llm_call_open_is_due CHECK (state NOT IN ('queued', 'running', 'waiting') OR due_at IS NOT NULL),
    CONSTRAINT ck_llm_call_has_attempt CHECK (state NOT IN ('running', 'succeeded') OR attempt_id IS NOT NULL),
    CONSTRAINT ck_llm_call_end_has_error CHECK (state NOT IN ('dead', 'rejected') OR error IS NOT NULL),
    CONSTRAINT ck_llm_call_hold_requested_while_waiting
        CHECK (requested_hold_nano_usd IS NULL OR state IN ('waiting', 'queued')),
    CONSTRAINT ck_llm_call_breaker_while_waiting CHECK (breaker_id IS NULL OR state IN ('waiting', 'queued')),
    CONSTRAINT ck_llm_call_has_wait_reason CHECK ((wait_reason IS NOT NULL) = (state = 'waiting')),
    CONSTRAINT ck_llm_call_has_end_reason CHECK ((end_reason IS NOT NULL) = (state IN ('dead', 'rejected'))),
    CONSTRAINT ck_llm_call_wait_reason
        CHECK (wait_reason IN ('retry', 'budget_held', 'budget_exhausted', 'provider', 'quarantine', 'memory', 'locked')),
    CONSTRAINT ck_llm_call_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_llm_call_call_type_is_bounded CHECK (char_length(call_type) <= 128),
    CONSTRAINT ck_llm_call_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_llm_call_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_llm_call_input_hash_is_bounded CHECK (octet_length(input_hash) = 32),
    CONSTRAINT ck_llm_call_input_token_bound_is_bounded CHECK (input_token_bound BETWEEN 0 AND 67108864),
    CONSTRAINT ck_llm_call_request_is_bounded CHECK (octet_length(request) <= 33554432),
    CONSTRAINT ck_llm_call_error_is_bounded CHECK (octet_length(error) <= 16384),
    CONSTRAINT ck_llm_call_end_reason_is_bounded CHECK (char_length(end_reason) <= 128),
    CONSTRAINT ck_llm_call_error_fingerprint_is_bounded CHECK (char_length(error_fingerprint) <= 64)
);
COMMENT ON COLUMN llm_call.due_at IS 'when it must be looked at; of a queued call when it was queued';
COMMENT ON COLUMN llm_call.attempt_id IS 'the newest attempt; of a succeeded call the winner';
COMMENT ON COLUMN llm_call.request IS 'the LLMRequest, byte for byte; null when purged';
COMMENT ON COLUMN llm_call.requested_hold_nano_usd IS 'the hold for which it waits, from refusal to claim';
COMMENT ON COLUMN llm_call.sweeps IS 'how many sweeps have found it queued since the last claim or refusal';
COMMENT ON COLUMN llm_call.wait_reason IS 'why it waits';
COMMENT ON COLUMN llm_call.end_reason IS 'the code of its error, if it is dead or rejected';
COMMENT ON COLUMN llm_call.breaker_id IS 'the shared breaker of the provider that it waits for';
COMMENT ON COLUMN llm_call.wait_until IS 'until when it may wait for its provider';
CREATE INDEX ix_llm_call_breaker ON llm_call (breaker_id, org_id, attempt, created_at) WHERE breaker_id IS NOT NULL;
CREATE INDEX ix_llm_call_dead ON llm_call (org_id, error_fingerprint) WHERE state = 'dead';
CREATE INDEX ix_llm_call_due ON llm_call (due_at) WHERE state <> 'queued' AND due_at IS NOT NULL;
CREATE INDEX ix_llm_call_kept ON llm_call (org_id, created_at) WHERE request IS NOT NULL AND due_at IS NULL;
CREATE INDEX ix_llm_call_least_requested_hold ON llm_call (org_id, call_type, requested_hold_nano_usd)
    WHERE requested_hold_nano_usd IS NOT NULL;
CREATE INDEX ix_llm_call_org ON llm_call (org_id, created_at DESC);
CREATE INDEX ix_llm_call_queued ON llm_call (due_at) WHERE state = 'queued';
CREATE INDEX ix_llm_call_released ON llm_call (breaker_id, due_at) WHERE breaker_id IS NOT NULL;
CREATE INDEX ix_llm_call_requested_hold ON llm_call (org_id, created_at) WHERE requested_hold_nano_usd IS NOT NULL;

CREATE TABLE submission (
    submission_id UUID NOT NULL,
    org_id TEXT NOT NULL,
    call_id UUID NOT NULL,
    generation INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    idempotency_key TEXT,
    link TEXT,
    delivered_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    tries INTEGER DEFAULT 0 NOT NULL,
    failure TEXT,
    try_at TIMESTAMP WITH TIME ZONE DEFAULT '1970-01-01 00:00:00+00'::timestamptz NOT NULL,
    given_up_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_submission PRIMARY KEY (submission_id),
    CONSTRAINT uq_submission_org_id_idempotency_key UNIQUE (org_id, idempotency_key),
    CONSTRAINT ck_submission_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_submission_idempotency_key_is_bounded CHECK (char_length(idempotency_key) <= 255),
    CONSTRAINT ck_submission_link_is_bounded CHECK (octet_length(link) <= 65536),
    CONSTRAINT ck_submission_failure_is_bounded CHECK (char_length(failure) <= 500)
);
COMMENT ON COLUMN submission.outcome IS 'created, joined, replayed, failed, inherited';
COMMENT ON COLUMN submission.link IS 'the message to publish when the call ends, with its route; null when purged';
COMMENT ON COLUMN submission.failure IS 'why the last delivery of the link failed';
COMMENT ON COLUMN submission.try_at IS 'when to try again, once the call has ended';
COMMENT ON COLUMN submission.given_up_at IS 'when delivery was given up';
CREATE INDEX ix_submission_call ON submission (call_id, generation);
CREATE INDEX ix_submission_undelivered ON submission (call_id, generation, try_at)
    WHERE link IS NOT NULL AND delivered_at IS NULL AND given_up_at IS NULL;

CREATE TABLE undelivered_call (
    call_id UUID NOT NULL,
    generation INTEGER NOT NULL,
    org_id TEXT NOT NULL,
    deliver_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_undelivered_call PRIMARY KEY (call_id, generation)
);
COMMENT ON TABLE undelivered_call IS 'ended calls with links to deliver';
COMMENT ON COLUMN undelivered_call.deliver_at IS 'when the next of its links is to be delivered';
CREATE INDEX ix_undelivered_call_turn ON undelivered_call (org_id, deliver_at);

CREATE TABLE ai_call_log (
    attempt_id UUID DEFAULT uuidv7() NOT NULL,
    call_id UUID NOT NULL,
    generation INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    org_id TEXT NOT NULL,
    input_hash BYTEA NOT NULL,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    hold_nano_usd BIGINT NOT NULL,
    posted_nano_usd BIGINT,
    cost_usd NUMERIC(20, 9) GENERATED ALWAYS AS (posted_nano_usd::numeric / 1000000000) STORED,
    budget_ids BIGINT[] NOT NULL,
    input_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    output_tokens INTEGER,
    reasoning_tokens INTEGER,
    price_source TEXT,
    service_tier TEXT,
    latency_ms INTEGER,
    queue_ms INTEGER NOT NULL,
    provider_request_id TEXT,
    trace_id TEXT,
    error_json TEXT,
    reply BYTEA,
    worker_id TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    posted_at TIMESTAMP WITH TIME ZONE,
    kind TEXT DEFAULT 'call' NOT NULL,
    credential TEXT DEFAULT '' NOT NULL,
    anomalies TEXT[] DEFAULT '{}' NOT NULL,
    settled_by_hand_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_ai_call_log PRIMARY KEY (attempt_id),
    CONSTRAINT ck_ai_call_log_status CHECK (status IN ('dispatched', 'answered', 'succeeded', 'failed', 'unknown')),
    CONSTRAINT ck_ai_call_log_posted_at_end
        CHECK ((posted_nano_usd IS NULL) = (status IN ('dispatched', 'answered'))),
    CONSTRAINT ck_ai_call_log_posted_has_time CHECK ((posted_nano_usd IS NULL) = (posted_at IS NULL)),
    CONSTRAINT ck_ai_call_log_answered_has_time CHECK (status <> 'answered' OR finished_at IS NOT NULL),
    CONSTRAINT ck_ai_call_log_money_not_negative CHECK (hold_nano_usd >= 0 AND posted_nano_usd >= 0),
    CONSTRAINT ck_ai_call_log_kind CHECK (kind IN ('call', 'probe')),
    CONSTRAINT ck_ai_call_log_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_ai_call_log_input_hash_is_bounded CHECK (octet_length(input_hash) = 32),
    CONSTRAINT ck_ai_call_log_call_type_is_bounded CHECK (char_length(call_type) <= 128),
    CONSTRAINT ck_ai_call_log_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_ai_call_log_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_ai_call_log_credential_is_bounded CHECK (char_length(credential) <= 128),
    CONSTRAINT ck_ai_call_log_price_source_is_bounded CHECK (char_length(price_source) <= 2000),
    CONSTRAINT ck_ai_call_log_service_tier_is_bounded CHECK (char_length(service_tier) <= 128),
    CONSTRAINT ck_ai_call_log_provider_request_id_is_bounded CHECK (char_length(provider_request_id) <= 128),
    CONSTRAINT ck_ai_call_log_trace_id_is_bounded CHECK (char_length(trace_id) <= 128),
    CONSTRAINT ck_ai_call_log_error_json_is_bounded CHECK (octet_length(error_json) <= 16384),
    CONSTRAINT ck_ai_call_log_reply_is_bounded CHECK (octet_length(reply) <= 67108864),
    CONSTRAINT ck_ai_call_log_worker_id_is_bounded CHECK (char_length(worker_id) <= 512),
    CONSTRAINT ck_ai_call_log_anomalies_is_bounded CHECK (cardinality(anomalies) <= 32)
) PARTITION BY RANGE (attempt_id);
CREATE TABLE ai_call_log_default PARTITION OF ai_call_log DEFAULT;
COMMENT ON COLUMN ai_call_log.reply IS 'the ProviderReply, byte for byte; null when purged';
COMMENT ON COLUMN ai_call_log.worker_id IS 'the process and its claim number';
COMMENT ON COLUMN ai_call_log.finished_at IS 'when the answer was recorded';
COMMENT ON COLUMN ai_call_log.posted_at IS 'when the money was posted, or posted again';
COMMENT ON COLUMN ai_call_log.credential IS 'whose key: an organisation, or empty for the provider''s own';
COMMENT ON COLUMN ai_call_log.anomalies IS 'what is implausible about the bill';
COMMENT ON COLUMN ai_call_log.settled_by_hand_at IS 'when an operator replaced what was posted';
CREATE INDEX ix_ai_call_log_call ON ai_call_log (call_id, generation, attempt);
CREATE INDEX ix_ai_call_log_late ON ai_call_log (finished_at) WHERE status = 'unknown' AND finished_at > posted_at;
CREATE INDEX ix_ai_call_log_org ON ai_call_log (org_id, started_at);
CREATE INDEX ix_ai_call_log_unknown ON ai_call_log (started_at)
    WHERE (status = 'unknown' OR anomalies && ARRAY['price_unknown', 'usage_implausible', 'usage_missing',
        'usage_zero']) AND settled_by_hand_at IS NULL;
CREATE INDEX ix_ai_call_log_worker ON ai_call_log (split_part(worker_id, '/', 1)) WHERE posted_at IS NULL;

CREATE TABLE ai_call_log_archive (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    partition_name TEXT NOT NULL,
    ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
    org_id TEXT NOT NULL,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    status TEXT NOT NULL,
    budget_ids BIGINT[] NOT NULL,
    attempts BIGINT NOT NULL,
    posted_nano_usd BIGINT NOT NULL,
    saved_nano_usd BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    CONSTRAINT pk_ai_call_log_archive PRIMARY KEY (id),
    CONSTRAINT ck_ai_call_log_archive_status CHECK (status IN ('succeeded', 'failed', 'unknown'))
);
COMMENT ON COLUMN ai_call_log_archive.partition_name IS 'the partition that was dropped';
COMMENT ON COLUMN ai_call_log_archive.ends_at IS 'its attempts are older than this';
COMMENT ON COLUMN ai_call_log_archive.saved_nano_usd IS 'posted times the collapsed submissions of its succeeded call';

CREATE TABLE budget (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    org_id TEXT NOT NULL,
    scope TEXT NOT NULL,
    "window" TEXT NOT NULL,
    timezone TEXT DEFAULT 'UTC' NOT NULL,
    starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
    limit_nano_usd BIGINT NOT NULL,
    reserved_nano_usd BIGINT DEFAULT 0 NOT NULL,
    spent_nano_usd BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_budget PRIMARY KEY (id),
    CONSTRAINT uq_budget_org_id_scope_window_starts_at UNIQUE (org_id, scope, "window", starts_at),
    CONSTRAINT ck_budget_window CHECK ("window" IN ('day', 'month')),
    CONSTRAINT ck_budget_period CHECK (starts_at < ends_at),
    CONSTRAINT ck_budget_money_not_negative
        CHECK (limit_nano_usd >= 0 AND reserved_nano_usd >= 0 AND spent_nano_usd >= 0),
    CONSTRAINT ck_budget_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_budget_scope_is_bounded CHECK (char_length(scope) <= 160),
    CONSTRAINT ck_budget_timezone_is_bounded CHECK (char_length(timezone) <= 64)
) WITH (fillfactor = 50);
COMMENT ON COLUMN budget.scope IS 'org, or call_type:<name>';

CREATE TABLE breaker (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    credential TEXT NOT NULL,
    org_id TEXT DEFAULT '' NOT NULL,
    is_open BOOLEAN DEFAULT false NOT NULL,
    reason TEXT,
    changed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    failed_orgs TEXT[] DEFAULT '{}' NOT NULL,
    proven_at TIMESTAMP WITH TIME ZONE,
    probe_wait_s DOUBLE PRECISION DEFAULT 10 NOT NULL,
    probe_at TIMESTAMP WITH TIME ZONE,
    turn_org TEXT DEFAULT '' NOT NULL,
    trial_ids UUID[] DEFAULT '{}' NOT NULL,
    CONSTRAINT pk_breaker PRIMARY KEY (id),
    CONSTRAINT uq_breaker_provider_model_credential_org_id UNIQUE (provider, model, credential, org_id),
    CONSTRAINT ck_breaker_probed_while_open CHECK (is_open OR probe_at IS NULL),
    CONSTRAINT ck_breaker_failures_are_few CHECK (cardinality(failed_orgs) <= 3),
    CONSTRAINT ck_breaker_provider_is_bounded CHECK (char_length(provider) <= 128),
    CONSTRAINT ck_breaker_model_is_bounded CHECK (char_length(model) <= 128),
    CONSTRAINT ck_breaker_credential_is_bounded CHECK (char_length(credential) <= 128),
    CONSTRAINT ck_breaker_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_breaker_reason_is_bounded CHECK (char_length(reason) <= 4000),
    CONSTRAINT ck_breaker_turn_org_is_bounded CHECK (char_length(turn_org) <= 128)
);
COMMENT ON COLUMN breaker.credential IS 'an organisation, or empty';
COMMENT ON COLUMN breaker.org_id IS 'whose calls; empty: shared by all organisations';
COMMENT ON COLUMN breaker.reason IS 'the failure that opened it, or an operator''s reason';
COMMENT ON COLUMN breaker.failed_orgs IS 'the organisations of the failures since the last success';
COMMENT ON COLUMN breaker.proven_at IS 'about when the last success was settled';
COMMENT ON COLUMN breaker.probe_at IS 'when the next probe may start; null while open: an operator must close it';
COMMENT ON COLUMN breaker.turn_org IS 'the organisation that was let through last';
COMMENT ON COLUMN breaker.trial_ids IS 'attempts under way whose result it waits for';

CREATE TABLE operator_action (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    operator TEXT NOT NULL,
    login TEXT DEFAULT SESSION_USER NOT NULL,
    action TEXT NOT NULL,
    org_id TEXT,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail JSONB DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT pk_operator_action PRIMARY KEY (id),
    CONSTRAINT ck_operator_action_has_reason CHECK (btrim(reason) <> ''),
    CONSTRAINT ck_operator_action_has_operator CHECK (btrim(operator) <> ''),
    CONSTRAINT ck_operator_action_operator_is_bounded CHECK (char_length(operator) <= 4000),
    CONSTRAINT ck_operator_action_action_is_bounded CHECK (char_length(action) <= 128),
    CONSTRAINT ck_operator_action_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_operator_action_subject_is_bounded CHECK (char_length(subject) <= 4000),
    CONSTRAINT ck_operator_action_reason_is_bounded CHECK (char_length(reason) <= 4000),
    CONSTRAINT ck_operator_action_detail_is_bounded CHECK (octet_length(detail::text) <= 65536)
);
COMMENT ON TABLE operator_action IS 'what operators changed, and why; append-only for every role';
COMMENT ON COLUMN operator_action.operator IS 'the operator''s name, as given to the tool';
COMMENT ON COLUMN operator_action.org_id IS 'null: it concerns no single organisation';
COMMENT ON COLUMN operator_action.subject IS 'what was changed: an id, or names';
CREATE INDEX ix_operator_action_at ON operator_action (at);
CREATE INDEX ix_operator_action_org ON operator_action (org_id, at);

CREATE TABLE unprocessable_message (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    queue TEXT NOT NULL,
    reason TEXT NOT NULL,
    raw BYTEA NOT NULL,
    CONSTRAINT pk_unprocessable_message PRIMARY KEY (id),
    CONSTRAINT ck_unprocessable_message_queue_is_bounded CHECK (char_length(queue) <= 1024),
    CONSTRAINT ck_unprocessable_message_reason_is_bounded CHECK (char_length(reason) <= 4000),
    CONSTRAINT ck_unprocessable_message_raw_is_bounded CHECK (octet_length(raw) <= 65536)
);

CREATE TABLE worker_lease (
    worker_id TEXT NOT NULL,
    began_at TIMESTAMP WITH TIME ZONE NOT NULL,
    stable_since TIMESTAMP WITH TIME ZONE NOT NULL,
    renewed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_worker_lease PRIMARY KEY (worker_id),
    CONSTRAINT ck_worker_lease_worker_id_is_bounded CHECK (char_length(worker_id) <= 512)
);
COMMENT ON COLUMN worker_lease.worker_id IS 'one process, without claim number';
COMMENT ON COLUMN worker_lease.began_at IS 'a new value: the lease was released meanwhile';
COMMENT ON COLUMN worker_lease.stable_since IS 'since then no renewal was late';

CREATE TABLE tenant_login (
    login TEXT NOT NULL,
    org_id TEXT NOT NULL,
    CONSTRAINT pk_tenant_login PRIMARY KEY (login, org_id),
    CONSTRAINT ck_tenant_login_login_is_bounded CHECK (char_length(login) <= 63),
    CONSTRAINT ck_tenant_login_org_id_is_bounded CHECK (char_length(org_id) <= 128)
);
COMMENT ON TABLE tenant_login IS 'which organisations a login of callgate_client acts for';
COMMENT ON COLUMN tenant_login.login IS 'as Postgres knows it: session_user';

-- Statistics would keep samples of bodies, also of those that are purged.
ALTER TABLE llm_call ALTER COLUMN request SET STATISTICS 0;
ALTER TABLE submission ALTER COLUMN link SET STATISTICS 0;
ALTER TABLE ai_call_log ALTER COLUMN reply SET STATISTICS 0;
ALTER TABLE unprocessable_message ALTER COLUMN raw SET STATISTICS 0;
