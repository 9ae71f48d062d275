-- callgate_take_sums_v1: make this session the only one that changes sums, until the transaction ends.
--
-- Locks     sum_gap. Clients may not lock it, and it stands for the right to change sums.
-- Returns   false if another session has it.
CREATE FUNCTION callgate_take_sums_v1() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE sum_gap IN SHARE ROW EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;
