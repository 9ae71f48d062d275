-- What no sampling could be sure to see, noted by the database itself in the transaction that did it.
--
-- overrun   a budget whose spent + reserved is above its limit, by how much
-- unknown   an attempt that became UNKNOWN; a late answer may turn it into something else afterwards
-- lost      the same of one whose worker brought no answer
-- again     an attempt that was posted although its outcome was posted before
--
-- All of it is in a schema of its own, whose end takes the triggers along: the ledger is left as it was found.
DROP SCHEMA IF EXISTS chaos CASCADE;
CREATE SCHEMA chaos;

CREATE TABLE chaos.witness (
    at timestamptz NOT NULL DEFAULT clock_timestamp(), what text NOT NULL, attempt_id uuid, nano_usd bigint);

CREATE FUNCTION chaos.see_overrun() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.witness (what, nano_usd)
    VALUES ('overrun', NEW.spent_nano_usd + NEW.reserved_nano_usd - NEW.limit_nano_usd);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_see_overrun AFTER INSERT OR UPDATE ON budget FOR EACH ROW
    WHEN (NEW.spent_nano_usd + NEW.reserved_nano_usd > NEW.limit_nano_usd)
    EXECUTE FUNCTION chaos.see_overrun();

CREATE FUNCTION chaos.see_unknown() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.witness (what, attempt_id) VALUES ('unknown', NEW.attempt_id);
    IF NEW.finished_at IS NULL THEN
        INSERT INTO chaos.witness (what, attempt_id) VALUES ('lost', NEW.attempt_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_see_unknown AFTER UPDATE ON ai_call_log FOR EACH ROW
    WHEN (NEW.status = 'unknown' AND OLD.status <> 'unknown')
    EXECUTE FUNCTION chaos.see_unknown();

CREATE FUNCTION chaos.see_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos.witness (what, attempt_id) VALUES ('again', NEW.attempt_id);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_see_again AFTER UPDATE ON ai_call_log FOR EACH ROW
    WHEN (OLD.status IN ('succeeded', 'failed') AND NEW.posted_at <> OLD.posted_at)
    EXECUTE FUNCTION chaos.see_again();
