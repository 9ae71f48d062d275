-- callgate_archive_month_v1: drop the oldest partition of ai_call_log that is older than p_keep_months whole months. Its
-- sums stay, and its name goes to dropped_month.
--
-- A partition is dropped only if nothing can change it any more: all its attempts are posted, their calls have ended,
-- their links are delivered, their bodies are purged, record_v1 would refuse a late answer, and its sums are proven: each
-- of their quarter hours is sealed. A partition with
-- unknown bills waits until p_unknown_days after they were posted, so that an operator can still settle them.
-- settle_unknown_v1 waits for the lock of take_upkeep_v1.
-- Old rows of the default partition are archived in the same way, and deleted.
-- Locks     what take_upkeep_v1 locks, then ai_call_log exclusively, at the moment of the drop. If it cannot be locked
--           within a second, the statement fails and the caller tries again later.
-- Returns   the partition's name and the number of archived attempts. If the oldest partition must wait: its name,
--           null, and the number of unknown bills for which it waits. No row if no partition is old enough, or if
--           another session is archiving.
CREATE FUNCTION callgate_archive_month_v1(p_keep_months int, p_unknown_days int)
RETURNS TABLE (partition_name text, archived bigint, unknown bigint)
LANGUAGE plpgsql SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
    ends_at timestamptz := date_trunc('month', now()) - make_interval(months => p_keep_months);
    must_wait boolean;
BEGIN
    IF p_keep_months < 1 THEN
        RAISE EXCEPTION 'the log is kept for one month at least, not for %', p_keep_months;
    END IF;
    IF NOT callgate_take_upkeep_v1() THEN
        RETURN;
    END IF;
    SELECT c.relname INTO partition_name
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = 'ai_call_log'::regclass AND c.relname ~ '^ai_call_log_\d{4}_\d\d$'
       AND c.relname < 'ai_call_log_' || to_char(ends_at, 'YYYY_MM')
     ORDER BY c.relname LIMIT 1;
    IF partition_name IS NULL THEN
        PERFORM 1 FROM ai_call_log_default d WHERE d.attempt_id < callgate_uuid_floor_v1(ends_at) LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        partition_name := 'ai_call_log_default';
    ELSE
        ends_at := to_date(right(partition_name, 7), 'YYYY_MM') + interval '1 month';
    END IF;

    EXECUTE format(
        $sql$SELECT EXISTS (
            SELECT 1 FROM %I a LEFT JOIN llm_call c ON c.call_id = a.call_id AND c.generation = a.generation
             WHERE a.attempt_id < $1
               AND (a.posted_nano_usd IS NULL OR a.status = 'unknown' AND a.finished_at > a.posted_at
                    OR a.reply IS NOT NULL
                    OR NOT EXISTS (SELECT 1 FROM sum_seal s WHERE s.starts_at = callgate_quarter_v1(a.started_at))
                    OR c.call_id IS NULL OR c.due_at IS NOT NULL OR c.request IS NOT NULL))$sql$,
        partition_name) INTO must_wait USING callgate_uuid_floor_v1(ends_at);
    EXECUTE format(
        $sql$SELECT count(*) FROM %I a
             WHERE a.attempt_id < $1 AND a.settled_by_hand_at IS NULL AND callgate_bill_unknown_v1(a.status, a.anomalies)
               AND a.posted_at > now() - make_interval(days => $2)$sql$,
        partition_name) INTO unknown USING callgate_uuid_floor_v1(ends_at), p_unknown_days;
    IF must_wait OR unknown > 0 THEN
        RETURN NEXT;
        RETURN;
    END IF;

    EXECUTE format('SELECT count(*) FROM %I a WHERE a.attempt_id < $1', partition_name)
      INTO archived USING callgate_uuid_floor_v1(ends_at);
    INSERT INTO dropped_month (partition_name, ends_at, attempts) VALUES (partition_name, ends_at, archived);
    IF partition_name = 'ai_call_log_default' THEN
        DELETE FROM ai_call_log_default d WHERE d.attempt_id < callgate_uuid_floor_v1(ends_at);
    ELSE
        EXECUTE format('DROP TABLE %I', partition_name);
    END IF;
    RETURN NEXT;
END $$;
