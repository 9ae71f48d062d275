-- callgate_take_upkeep_v1: be the only session that creates or drops partitions, to the end of the transaction; false if
-- another one is.
--
-- Locks     ai_call_log_archive, as a token: clients may not lock it. They could hold an advisory lock without limit.
CREATE FUNCTION callgate_take_upkeep_v1() RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE ai_call_log_archive IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    RETURN true;
EXCEPTION WHEN lock_not_available THEN
    RETURN false;
END $$;
