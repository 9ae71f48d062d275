-- callgate_reschedule_delivery_v1: set when the next link of an ended call is to be delivered; if there is none, delete
-- its row of undelivered_call.
--
-- The caller holds the lock of that row, so that a link that is added at this moment is either seen or comes later.
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
