-- callgate_fill_sums_v1: sum up one of the days of before the sums were kept, the newest first.
--
-- Locks     what take_sums_v1 locks.
-- Returns   the day; null if there is none, or if another session changes sums.
CREATE FUNCTION callgate_fill_sums_v1() RETURNS date
LANGUAGE plpgsql AS $$
DECLARE
    next_day CONSTANT date := (SELECT max(g.day) FROM sum_gap g);
BEGIN
    IF next_day IS NULL OR callgate_correct_sums_v1(next_day) IS NULL THEN
        RETURN NULL;
    END IF;
    RETURN next_day;
END $$;
