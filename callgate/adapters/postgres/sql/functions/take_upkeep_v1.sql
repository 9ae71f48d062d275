-- callgate_take_upkeep_v1: be the only one, to the end of the transaction, that makes or drops partitions; false if somebody is.
--
-- Locks     ai_call_log_archive, as a token: clients may not lock it, and could hold an advisory lock for ever.
CREATE FUNCTION callgate_take_upkeep_v1() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE ai_call_log_archive IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;
