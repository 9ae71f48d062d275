-- callgate_lock_newest_v1: lock the newest generation of a call, for a submission that may join it.
--
-- Locks     the call: FOR SHARE. Or FOR NO KEY UPDATE, if the submission raises the call. So two submissions that raise
--           it do not wait for each other's shared lock.
-- Settings  those of store_submissions_v1, which calls it for each row.
-- Returns   the call; null if there is none.
CREATE FUNCTION callgate_lock_newest_v1(p_call_id uuid, p_priority smallint, p_start_before timestamptz) RETURNS llm_call
LANGUAGE plpgsql AS $$
DECLARE
    c llm_call%ROWTYPE;
BEGIN
    SELECT * INTO c FROM llm_call l WHERE l.call_id = p_call_id ORDER BY l.generation DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    IF callgate_is_raised_v1(c, p_priority, p_start_before) THEN
        SELECT * INTO c FROM llm_call l WHERE l.call_id = p_call_id
         ORDER BY l.generation DESC LIMIT 1 FOR NO KEY UPDATE;
    ELSE
        SELECT * INTO c FROM llm_call l WHERE l.call_id = p_call_id ORDER BY l.generation DESC LIMIT 1 FOR SHARE;
    END IF;
    RETURN c;
END $$;
