-- Triggers that record, in the same transaction, what sampling could miss.
--
-- overrun   a budget with spent + reserved above its limit, and the difference
-- unknown   an attempt that became UNKNOWN; a late answer may change its status later
-- lost      the same, of an attempt without an answer
-- again     an attempt that was posted again after its outcome was posted
-- limited   a call that was made to wait for a limit of the provider
-- unblocked a key that a refusal had blocked
--
-- Everything is in a schema of its own. Dropping the schema drops the triggers too.
DROP SCHEMA IF EXISTS chaos CASCADE;
CREATE SCHEMA chaos;

CREATE TABLE chaos.observation (
    at timestamptz NOT NULL DEFAULT clock_timestamp(), what text NOT NULL, attempt_id uuid, nano_usd bigint,
    provider text);

CREATE FUNCTION chaos.observe_overrun() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.observation (what, nano_usd)
    VALUES ('overrun', NEW.spent_nano_usd + NEW.reserved_nano_usd - NEW.limit_nano_usd);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_observe_overrun AFTER INSERT OR UPDATE ON budget FOR EACH ROW
    WHEN (NEW.spent_nano_usd + NEW.reserved_nano_usd > NEW.limit_nano_usd)
    EXECUTE FUNCTION chaos.observe_overrun();

CREATE FUNCTION chaos.observe_unknown() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.observation (what, attempt_id) VALUES ('unknown', NEW.attempt_id);
    IF NEW.finished_at IS NULL THEN
        INSERT INTO chaos.observation (what, attempt_id) VALUES ('lost', NEW.attempt_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_observe_unknown AFTER UPDATE ON ai_call_log FOR EACH ROW
    WHEN (NEW.status = 'unknown' AND OLD.status <> 'unknown')
    EXECUTE FUNCTION chaos.observe_unknown();

CREATE FUNCTION chaos.observe_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.observation (what, attempt_id) VALUES ('again', NEW.attempt_id);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_observe_again AFTER UPDATE ON ai_call_log FOR EACH ROW
    WHEN (OLD.status IN ('succeeded', 'failed') AND NEW.posted_at <> OLD.posted_at)
    EXECUTE FUNCTION chaos.observe_again();

CREATE FUNCTION chaos.observe() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.observation (what, provider) VALUES (TG_ARGV[0], NEW.provider);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_observe_limited AFTER UPDATE ON llm_call FOR EACH ROW
    WHEN (NEW.wait_reason = 'rate_limited' AND OLD.wait_reason IS DISTINCT FROM 'rate_limited')
    EXECUTE FUNCTION chaos.observe('limited');
CREATE TRIGGER chaos_observe_unblocked AFTER UPDATE ON breaker FOR EACH ROW
    WHEN (OLD.is_open AND OLD.reason = 'rate_limited' AND NOT NEW.is_open)
    EXECUTE FUNCTION chaos.observe('unblocked');
