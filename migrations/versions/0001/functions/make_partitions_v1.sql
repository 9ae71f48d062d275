-- callgate_make_partitions_v1: create the missing monthly partitions of ai_call_log: p_months months, beginning with
-- the month of p_from.
--
-- Months are in UTC. If the default partition already has rows of a month, they stay there and the month gets no
-- partition. To add a partition, Postgres reads the whole default partition under a lock that stops the ledger. So none
-- is added once the default partition is large, unless a validated constraint named ai_call_log_default_is_past makes
-- the reading unnecessary (ADR 10).
-- If another session does the same, nothing is done.
-- Locks     what take_upkeep_v1 locks, then ai_call_log exclusively, for a moment. If it cannot be locked within a
--           second, the statement fails and the caller tries again later.
-- Returns   made: how many were created. not_made: how many were not, because the default partition is too large.
--           in_default: how many rows the default partition has, counted up to 1,000; there should be none.
CREATE FUNCTION callgate_make_partitions_v1(p_from timestamptz, p_months int)
RETURNS TABLE (made int, not_made int, in_default int)
LANGUAGE plpgsql SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
    first_month timestamptz := date_trunc('month', p_from);
    -- Postgres reads this much in a few hundredths of a second.
    default_bytes_max CONSTANT bigint := 16 * 1024 * 1024;
    is_too_large boolean;
    starts_at timestamptz;
    partition_name text;
    first_id uuid;
    end_id uuid;
BEGIN
    IF p_months < 1 OR first_month < now() - interval '3 years'
       OR first_month + make_interval(months => p_months - 1) > now() + interval '6 months' THEN
        RAISE EXCEPTION 'partitions are made from 3 years ago to 6 months ahead, not for % months from %', p_months, p_from;
    END IF;
    made := 0;
    not_made := 0;
    IF callgate_take_upkeep_v1() THEN
        is_too_large := pg_relation_size('ai_call_log_default') > default_bytes_max AND NOT EXISTS (
            SELECT 1 FROM pg_constraint WHERE conrelid = 'ai_call_log_default'::regclass
               AND conname = 'ai_call_log_default_is_past' AND convalidated);
        FOR month_no IN 0 .. p_months - 1 LOOP
            starts_at := first_month + make_interval(months => month_no);
            partition_name := 'ai_call_log_' || to_char(starts_at, 'YYYY_MM');
            first_id := callgate_uuid_floor_v1(starts_at);
            end_id := callgate_uuid_floor_v1(starts_at + interval '1 month');
            CONTINUE WHEN to_regclass(partition_name) IS NOT NULL OR EXISTS (
                SELECT 1 FROM ai_call_log_default d WHERE d.attempt_id >= first_id AND d.attempt_id < end_id);
            IF is_too_large THEN
                not_made := not_made + 1;
                CONTINUE;
            END IF;
            EXECUTE format('CREATE TABLE %I PARTITION OF ai_call_log FOR VALUES FROM (%L) TO (%L)',
                           partition_name, first_id, end_id);
            -- A partition inherits neither setting from its table.
            EXECUTE format('ALTER TABLE %I ALTER COLUMN reply SET STATISTICS 0', partition_name);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', partition_name);
            made := made + 1;
        END LOOP;
    END IF;
    SELECT count(*) INTO in_default FROM (SELECT 1 FROM ai_call_log_default LIMIT 1000) AS found;
    RETURN NEXT;
END $$;
