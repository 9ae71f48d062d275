-- callgate_ahead_max_v1: how many calls of an organisation are queued: `ahead_max` in callgate/domain/slots.py.
CREATE FUNCTION callgate_ahead_max_v1(p_slots int) RETURNS int
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT least(1000, greatest(64, coalesce(p_slots, 1000)))
$$;
