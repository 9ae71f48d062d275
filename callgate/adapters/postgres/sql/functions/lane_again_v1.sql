-- callgate_lane_again_v1: choose the lane in which a call that is queued again is published, and keep it. The call is
-- not counted itself.
--
-- Locks     nothing. The caller holds the call.
CREATE FUNCTION callgate_lane_again_v1(c llm_call) RETURNS text
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    new_lane CONSTANT text := callgate_lane_v1(
        greatest(0, callgate_queued_v1(c.org_id, 9, NULL) - 1), c.priority,
        CASE c.priority WHEN 2 THEN callgate_queued_v1(c.org_id, 65, 2::smallint) - 1 END,
        callgate_is_congested_v1(callgate_slots_v1()), 1000);
BEGIN
    IF nullif(new_lane, 'call') IS DISTINCT FROM c.lane THEN
        UPDATE llm_call l SET lane = nullif(new_lane, 'call')
         WHERE l.call_id = c.call_id AND l.generation = c.generation;
    END IF;
    RETURN new_lane;
END $$;
