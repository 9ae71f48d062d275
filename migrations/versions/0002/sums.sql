-- Sums of what attempts used, and those that there were before.

CREATE TABLE attempt_delta (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
    org_id TEXT NOT NULL,
    project TEXT,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    tier TEXT,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    budget_ids BIGINT[] NOT NULL,
    attempts BIGINT DEFAULT 0 NOT NULL,
    calls BIGINT DEFAULT 0 NOT NULL,
    posted_nano_usd BIGINT DEFAULT 0 NOT NULL,
    unknown_bills BIGINT DEFAULT 0 NOT NULL,
    unknown_nano_usd BIGINT DEFAULT 0 NOT NULL,
    without_tokens BIGINT DEFAULT 0 NOT NULL,
    input_tokens BIGINT DEFAULT 0 NOT NULL,
    cached_input_tokens BIGINT DEFAULT 0 NOT NULL,
    cache_write_tokens BIGINT DEFAULT 0 NOT NULL,
    cache_write_1h_tokens BIGINT DEFAULT 0 NOT NULL,
    output_tokens BIGINT DEFAULT 0 NOT NULL,
    reasoning_tokens BIGINT DEFAULT 0 NOT NULL,
    latency_ms BIGINT DEFAULT 0 NOT NULL,
    timed BIGINT DEFAULT 0 NOT NULL,
    collapsed BIGINT DEFAULT 0 NOT NULL,
    saved_nano_usd BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT pk_attempt_delta PRIMARY KEY (id)
);
COMMENT ON TABLE attempt_delta IS 'what sums lack yet; appended by who changes a row, taken by fold_sums_v1';
COMMENT ON COLUMN attempt_delta.starts_at IS 'the quarter hour';
COMMENT ON COLUMN attempt_delta.calls IS 'attempts that are the first of their call';
COMMENT ON COLUMN attempt_delta.unknown_bills IS 'attempts whose bill is unknown';
COMMENT ON COLUMN attempt_delta.unknown_nano_usd IS 'what those have posted';
COMMENT ON COLUMN attempt_delta.without_tokens IS 'attempts that posted an amount, and whose tokens are not known';
COMMENT ON COLUMN attempt_delta.timed IS 'attempts whose latency is known';
COMMENT ON COLUMN attempt_delta.collapsed IS 'submissions that were answered without a call of their own';
COMMENT ON COLUMN attempt_delta.saved_nano_usd IS 'what those would have cost, as it was known when they were answered';

CREATE TABLE quarter_sum (
    starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
    org_id TEXT NOT NULL,
    project TEXT,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    tier TEXT,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    attempts BIGINT DEFAULT 0 NOT NULL,
    calls BIGINT DEFAULT 0 NOT NULL,
    posted_nano_usd BIGINT DEFAULT 0 NOT NULL,
    unknown_bills BIGINT DEFAULT 0 NOT NULL,
    unknown_nano_usd BIGINT DEFAULT 0 NOT NULL,
    without_tokens BIGINT DEFAULT 0 NOT NULL,
    input_tokens BIGINT DEFAULT 0 NOT NULL,
    cached_input_tokens BIGINT DEFAULT 0 NOT NULL,
    cache_write_tokens BIGINT DEFAULT 0 NOT NULL,
    cache_write_1h_tokens BIGINT DEFAULT 0 NOT NULL,
    output_tokens BIGINT DEFAULT 0 NOT NULL,
    reasoning_tokens BIGINT DEFAULT 0 NOT NULL,
    latency_ms BIGINT DEFAULT 0 NOT NULL,
    timed BIGINT DEFAULT 0 NOT NULL,
    collapsed BIGINT DEFAULT 0 NOT NULL,
    saved_nano_usd BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT uq_quarter_sum_key UNIQUE NULLS NOT DISTINCT (starts_at, org_id, project, call_type, provider, model, tier, kind, outcome)
) WITH (fillfactor = 80);
COMMENT ON TABLE quarter_sum IS 'sums of posted attempts and collapsed submissions by quarter hour';
COMMENT ON COLUMN quarter_sum.starts_at IS 'the quarter hour';
CREATE INDEX ix_quarter_sum_org ON quarter_sum (org_id, starts_at);

CREATE TABLE day_sum (
    day DATE NOT NULL,
    org_id TEXT NOT NULL,
    project TEXT,
    call_type TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    tier TEXT,
    kind TEXT NOT NULL,
    outcome TEXT NOT NULL,
    attempts BIGINT DEFAULT 0 NOT NULL,
    calls BIGINT DEFAULT 0 NOT NULL,
    posted_nano_usd BIGINT DEFAULT 0 NOT NULL,
    unknown_bills BIGINT DEFAULT 0 NOT NULL,
    unknown_nano_usd BIGINT DEFAULT 0 NOT NULL,
    without_tokens BIGINT DEFAULT 0 NOT NULL,
    input_tokens BIGINT DEFAULT 0 NOT NULL,
    cached_input_tokens BIGINT DEFAULT 0 NOT NULL,
    cache_write_tokens BIGINT DEFAULT 0 NOT NULL,
    cache_write_1h_tokens BIGINT DEFAULT 0 NOT NULL,
    output_tokens BIGINT DEFAULT 0 NOT NULL,
    reasoning_tokens BIGINT DEFAULT 0 NOT NULL,
    latency_ms BIGINT DEFAULT 0 NOT NULL,
    timed BIGINT DEFAULT 0 NOT NULL,
    collapsed BIGINT DEFAULT 0 NOT NULL,
    saved_nano_usd BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT uq_day_sum_key UNIQUE NULLS NOT DISTINCT (day, org_id, project, call_type, provider, model, tier, kind, outcome)
) WITH (fillfactor = 80);
COMMENT ON TABLE day_sum IS 'the same by day';
COMMENT ON COLUMN day_sum.day IS 'in UTC';
CREATE INDEX ix_day_sum_org ON day_sum (org_id, day);

CREATE TABLE budget_sum (
    budget_id BIGINT NOT NULL,
    day DATE NOT NULL,
    posted_nano_usd BIGINT NOT NULL,
    CONSTRAINT pk_budget_sum PRIMARY KEY (budget_id, day)
) WITH (fillfactor = 80);
COMMENT ON TABLE budget_sum IS 'what attempts have posted to budgets';
COMMENT ON COLUMN budget_sum.day IS 'in UTC, of the attempts'' started_at';
CREATE INDEX ix_budget_sum_day ON budget_sum (day);

CREATE TABLE sum_seal (
    starts_at TIMESTAMP WITH TIME ZONE NOT NULL,
    attempts BIGINT NOT NULL,
    posted_nano_usd BIGINT NOT NULL,
    proven_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_sum_seal PRIMARY KEY (starts_at)
);
COMMENT ON TABLE sum_seal IS 'quarter hours whose sums were proven by their rows; a later delta removes the seal';
COMMENT ON COLUMN sum_seal.starts_at IS 'the quarter hour';

CREATE TABLE sum_gap (
    day DATE NOT NULL,
    CONSTRAINT pk_sum_gap PRIMARY KEY (day)
);
COMMENT ON TABLE sum_gap IS 'days of before the sums were kept, which correct_sums_v1 has yet to sum up';

CREATE TABLE dropped_month (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    partition_name TEXT NOT NULL,
    ends_at TIMESTAMP WITH TIME ZONE NOT NULL,
    attempts BIGINT NOT NULL,
    dropped_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT pk_dropped_month PRIMARY KEY (id)
);
COMMENT ON TABLE dropped_month IS 'partitions of ai_call_log that retention has dropped; their sums stay';
COMMENT ON COLUMN dropped_month.partition_name IS 'the partition that was dropped';
COMMENT ON COLUMN dropped_month.ends_at IS 'its attempts are older than this';
-- Deltas are appended and deleted all the time: an empty page is wanted back soon.
ALTER TABLE attempt_delta SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX ix_submission_collapsed ON submission (org_id, created_at) WHERE outcome IN ('joined', 'replayed', 'failed');

-- The sums of months that were dropped by 0.1.0 know their month only. They stand in its last quarter hour.
INSERT INTO attempt_delta (
    starts_at, org_id, call_type, provider, model, kind, outcome, budget_ids, attempts, posted_nano_usd, input_tokens,
    cached_input_tokens, cache_write_tokens, output_tokens, reasoning_tokens, saved_nano_usd)
SELECT x.ends_at - interval '15 min', x.org_id, x.call_type, x.provider, x.model, 'call', x.status, x.budget_ids, x.attempts,
       x.posted_nano_usd, x.input_tokens, x.cached_input_tokens, x.cache_write_tokens, x.output_tokens,
       x.reasoning_tokens, x.saved_nano_usd
  FROM ai_call_log_archive x;
INSERT INTO dropped_month (partition_name, ends_at, attempts)
SELECT x.partition_name, x.ends_at, sum(x.attempts) FROM ai_call_log_archive x GROUP BY 1, 2 ORDER BY 2;
DROP VIEW ai_call_log_sums;
DROP TABLE ai_call_log_archive;
