-- callgate_released_v1: how many calls of an organisation's backlog are queued now, and on their way there: `released` in
-- callgate/domain/slots.py.
--
-- p_slots    of the workers; null: that is not known.
-- p_work_of  the organisations with work, and per organisation the calls that run and those that ask: org_work_v1.
CREATE FUNCTION callgate_released_v1(p_org_id text, p_slots int, p_work_of text[], p_running int[], p_asking int[])
RETURNS int
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    at_once_part CONSTANT float8 := 0.25;
    spare_min CONSTANT int := 8;
    spare_part CONSTANT float8 := 0.25;
    most int := callgate_ahead_max_v1(p_slots);
    running CONSTANT int := coalesce(p_running[array_position(p_work_of, p_org_id)], 0);
    usable CONSTANT float8[] := ARRAY(       -- by the others
        SELECT p_running[n] + p_asking[n] FROM generate_subscripts(p_work_of, 1) n WHERE p_work_of[n] <> p_org_id);
    share float8;
    room int;
BEGIN
    IF p_slots IS NOT NULL AND usable <> '{}' THEN
        share := callgate_slot_share_v1(p_slots, usable || 'infinity'::float8);
        IF running >= share THEN
            RETURN 0;
        END IF;
        most := least(most, ceil(share - running)::int + greatest(spare_min, floor(share * spare_part)::int));
    END IF;
    room := most - callgate_queued_v1(p_org_id, most, NULL);
    RETURN CASE WHEN room >= most * at_once_part THEN room ELSE 0 END;
END $$;
