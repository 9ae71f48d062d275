-- The tables of alerts.

CREATE TABLE alert (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    org_id TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail JSONB NOT NULL,
    at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    resolved_at TIMESTAMP WITH TIME ZONE,
    is_queued BOOLEAN DEFAULT false NOT NULL,
    CONSTRAINT pk_alert PRIMARY KEY (id),
    CONSTRAINT ck_alert_kind_is_bounded CHECK (char_length(kind) <= 128),
    CONSTRAINT ck_alert_key_is_bounded CHECK (char_length(key) <= 4000),
    CONSTRAINT ck_alert_org_id_is_bounded CHECK (char_length(org_id) <= 128),
    CONSTRAINT ck_alert_subject_is_bounded CHECK (char_length(subject) <= 4000),
    CONSTRAINT ck_alert_detail_is_bounded CHECK (octet_length(detail::text) <= 65536)
);
COMMENT ON TABLE alert IS 'facts; only the two last columns change';
COMMENT ON COLUMN alert.key IS 'of the condition, and of its period if it has one';
COMMENT ON COLUMN alert.org_id IS 'empty: it concerns no single organisation';
COMMENT ON COLUMN alert.subject IS 'what it is about: names';
COMMENT ON COLUMN alert.detail IS 'names and figures; no text of callers';
COMMENT ON COLUMN alert.resolved_at IS 'when its condition had gone; null: not yet, or it cannot';
COMMENT ON COLUMN alert.is_queued IS 'its messages were made; false again when it is resolved';
CREATE UNIQUE INDEX uq_alert_unresolved_key ON alert (key) WHERE resolved_at IS NULL;
CREATE INDEX ix_alert_at ON alert (at);
CREATE INDEX ix_alert_news ON alert (id) WHERE NOT is_queued;
CREATE INDEX ix_alert_resolved_at ON alert (resolved_at) WHERE resolved_at IS NOT NULL;

CREATE TABLE alert_delivery (
    id UUID DEFAULT gen_random_uuid() NOT NULL,
    alert_id BIGINT NOT NULL,
    event TEXT NOT NULL,
    channel TEXT NOT NULL,
    queued_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    tries INTEGER DEFAULT 0 NOT NULL,
    next_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    delivered_at TIMESTAMP WITH TIME ZONE,
    failure TEXT,
    dead_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT pk_alert_delivery PRIMARY KEY (id),
    CONSTRAINT uq_alert_delivery_alert_id_event_channel UNIQUE (alert_id, event, channel),
    CONSTRAINT ck_alert_delivery_event CHECK (event IN ('raised', 'resolved')),
    CONSTRAINT ck_alert_delivery_channel CHECK (channel IN ('log', 'webhook')),
    CONSTRAINT ck_alert_delivery_failure_is_bounded CHECK (char_length(failure) <= 500)
);
COMMENT ON TABLE alert_delivery IS 'messages about alerts, by where they go';
COMMENT ON COLUMN alert_delivery.id IS 'of the message; the same in each try';
COMMENT ON COLUMN alert_delivery.failure IS 'why the last try failed: a status, or the name of an error';
COMMENT ON COLUMN alert_delivery.dead_at IS 'when it was given up';
CREATE INDEX ix_alert_delivery_due ON alert_delivery (next_at) WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX ix_alert_delivery_dead ON alert_delivery (alert_id) WHERE dead_at IS NOT NULL;

CREATE TABLE alert_watch (
    is_only BOOLEAN DEFAULT true NOT NULL,
    looked_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT pk_alert_watch PRIMARY KEY (is_only),
    CONSTRAINT ck_alert_watch_is_one_row CHECK (is_only)
);
COMMENT ON TABLE alert_watch IS 'when somebody last looked for alerts; one row';
CREATE INDEX ix_llm_call_dead_attempt ON llm_call (attempt_id) WHERE state = 'dead' AND generation > 0;
