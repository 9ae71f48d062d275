-- callgate_keep_sums_v1: let no session change sums, until the transaction ends. Several sessions may keep them at a time.
--
-- Locks     sum_gap, shared; see take_sums_v1.
-- Returns   false if a session changes them now.
CREATE FUNCTION callgate_keep_sums_v1() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE sum_gap IN SHARE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;
