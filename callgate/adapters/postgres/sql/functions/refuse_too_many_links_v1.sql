-- callgate_refuse_too_many_links_v1: raise an error if a call has p_links_max links that wait to be delivered.
CREATE FUNCTION callgate_refuse_too_many_links_v1(p_call_id uuid, p_generation int, p_links_max int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM submission o
      WHERE o.call_id = p_call_id AND o.generation = p_generation
        AND o.link IS NOT NULL AND o.delivered_at IS NULL AND o.given_up_at IS NULL
     OFFSET p_links_max - 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'call % has % links that wait to be delivered, and takes no more', p_call_id, p_links_max
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
END $$;
