-- callgate_take_upkeep_v1: make this session the only one that creates or drops partitions, until the transaction ends.
--
-- Locks     dropped_month. Clients may not lock it, and it stands for the right to upkeep. An advisory lock would
--           not do: a client could hold it without limit.
-- Returns   false if another session has it.
CREATE FUNCTION callgate_take_upkeep_v1() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE dropped_month IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;
