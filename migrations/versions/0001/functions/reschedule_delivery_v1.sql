-- callgate_reschedule_delivery_v1: set when the next link of an ended call is to be delivered. If there is no such
-- link, delete the call's row of undelivered_call.
--
-- Locks     nothing. The caller holds that row. So a link that is being added now is either seen here, or added
--           afterwards.
CREATE FUNCTION callgate_reschedule_delivery_v1(p_call_id uuid, p_generation int) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    next_at timestamptz;
BEGIN
    SELECT s.try_at INTO next_at FROM submission s
     WHERE s.call_id = p_call_id AND s.generation = p_generation
       AND s.link IS NOT NULL AND s.delivered_at IS NULL AND s.given_up_at IS NULL
     ORDER BY s.try_at LIMIT 1;
    IF FOUND THEN
        UPDATE undelivered_call u SET deliver_at = greatest(next_at, now())
         WHERE u.call_id = p_call_id AND u.generation = p_generation;
    ELSE
        DELETE FROM undelivered_call u WHERE u.call_id = p_call_id AND u.generation = p_generation;
    END IF;
END $$;
