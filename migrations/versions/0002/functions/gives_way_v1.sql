-- callgate_gives_way_v1: whether a claim leaves its slot to other organisations: `gives_way` in callgate/domain/slots.py.
--
-- p_mine     its organisation's index in the other arrays: the calls that run, those that are queued, and those of them
--            that ask for a slot.
CREATE FUNCTION callgate_gives_way_v1(p_slots int, p_mine int, p_running int[], p_queued int[], p_asking int[])
RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    clearly_below CONSTANT float8 := 7.0 / 8;
    share float8;
    asked bigint;
    free bigint;
BEGIN
    IF p_running[p_mine] = 0 THEN
        RETURN false;
    END IF;
    share := callgate_slot_share_v1(
        p_slots, ARRAY(SELECT p_running[n] + p_queued[n] FROM generate_subscripts(p_running, 1) n));
    IF share IS NULL OR p_running[p_mine] < share THEN
        RETURN false;
    END IF;
    SELECT sum(least(p_asking[n], ceil(share - p_running[n])))
               FILTER (WHERE n <> p_mine AND p_running[n] < clearly_below * share),
           p_slots - sum(p_running[n])
      INTO asked, free
      FROM generate_subscripts(p_running, 1) n;
    RETURN coalesce(asked, 0) >= greatest(1, free);
END $$;
