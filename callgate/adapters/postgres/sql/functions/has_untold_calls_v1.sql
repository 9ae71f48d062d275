-- callgate_has_untold_calls_v1: say when the next link of an ended call is to be delivered; forget the call if there is none.
--
-- The caller holds the lock of its row in untold_call, so that a link added at this moment is either seen or comes after.
CREATE FUNCTION callgate_has_untold_calls_v1(p_call_id uuid, p_generation int) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    next_at timestamptz;
BEGIN
    SELECT s.try_at INTO next_at FROM submission s
     WHERE s.call_id = p_call_id AND s.generation = p_generation
       AND s.link IS NOT NULL AND s.delivered_at IS NULL AND s.given_up_at IS NULL
     ORDER BY s.try_at LIMIT 1;
    IF FOUND THEN
        UPDATE untold_call u SET tell_at = greatest(next_at, now())
         WHERE u.call_id = p_call_id AND u.generation = p_generation;
    ELSE
        DELETE FROM untold_call u WHERE u.call_id = p_call_id AND u.generation = p_generation;
    END IF;
END $$;
