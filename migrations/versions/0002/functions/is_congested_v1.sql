-- callgate_is_congested_v1: whether so many calls are queued that one at the end of the queue would wait: `congested_at` in
-- callgate/domain/call_order.py.
--
-- p_slots   of the workers; null: that is not known.
CREATE FUNCTION callgate_is_congested_v1(p_slots int) RETURNS boolean
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    congested_at CONSTANT int := least(64, greatest(40, coalesce(p_slots, 128) / 2));
BEGIN
    RETURN (SELECT count(*) >= congested_at
              FROM (SELECT 1 FROM llm_call l WHERE l.state = 'queued' LIMIT congested_at) q);
END $$;
