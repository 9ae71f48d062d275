-- callgate_redrive_room_v1: how many calls of a running redrive may be released now.
--
-- Rules     callgate/domain/redrive_rules.py, `may_release`.
-- Locks     nothing: it reads no table.
CREATE FUNCTION callgate_redrive_room_v1(r redrive, p_step_max int, p_open_max int, p_catch_up_s float8) RETURNS int
LANGUAGE plpgsql STABLE AS $$
DECLARE
    room int := least(p_step_max, p_open_max - r.released);
    since timestamptz;
BEGIN
    IF r.rate_per_min IS NOT NULL THEN
        since := greatest(coalesce(r.free_at, now()), now() - make_interval(secs => p_catch_up_s));
        IF since > now() THEN
            RETURN 0;
        END IF;
        room := least(room, floor(extract(epoch FROM now() - since) * r.rate_per_min / 60)::int + 1);
    END IF;
    RETURN greatest(room, 0);
END $$;
