-- callgate_make_partitions_v1: see that ai_call_log has a partition for each of p_months months from p_from's on.
--
-- Months are UTC's. A month of which the default partition has rows already is left to it: they are served from there.
-- Whoever comes while another does the same does nothing.
-- Locks     what take_upkeep_v1 does, then ai_call_log, exclusively, for a moment; who cannot have it within a second comes
--           again later.
-- Returns   how many were made, and how many rows lie in the default partition (there should be none).
CREATE FUNCTION callgate_make_partitions_v1(p_from timestamptz, p_months int)
RETURNS TABLE (made int, in_default bigint)
LANGUAGE plpgsql SET timezone = 'UTC' SET lock_timeout = '1s' AS $$
DECLARE
    starts_at timestamptz;
    partition_name text;
    first_id uuid;
    end_id uuid;
BEGIN
    IF p_months NOT BETWEEN 1 AND 36 THEN
        RAISE EXCEPTION 'partitions are made for 1 to 36 months at once, not for %', p_months;
    END IF;
    made := 0;
    IF callgate_take_upkeep_v1() THEN
        FOR month_no IN 0 .. p_months - 1 LOOP
            starts_at := date_trunc('month', p_from) + make_interval(months => month_no);
            partition_name := 'ai_call_log_' || to_char(starts_at, 'YYYY_MM');
            first_id := callgate_uuid_floor_v1(starts_at);
            end_id := callgate_uuid_floor_v1(starts_at + interval '1 month');
            CONTINUE WHEN to_regclass(partition_name) IS NOT NULL OR EXISTS (
                SELECT 1 FROM ai_call_log_default d WHERE d.attempt_id >= first_id AND d.attempt_id < end_id);
            EXECUTE format('CREATE TABLE %I PARTITION OF ai_call_log FOR VALUES FROM (%L) TO (%L)',
                           partition_name, first_id, end_id);
            -- Neither comes from the table it is a part of.
            EXECUTE format('ALTER TABLE %I ALTER COLUMN reply SET STATISTICS 0', partition_name);
            EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', partition_name);
            made := made + 1;
        END LOOP;
    END IF;
    SELECT count(*) INTO in_default FROM ai_call_log_default;
    RETURN NEXT;
END $$;
