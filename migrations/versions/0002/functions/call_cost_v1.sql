-- callgate_call_cost_v1: what the attempts of a call have posted.
CREATE FUNCTION callgate_call_cost_v1(p_call_id uuid, p_generation int, p_created_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN (SELECT coalesce(sum(a.posted_nano_usd), 0)::bigint FROM ai_call_log a
             WHERE a.call_id = p_call_id AND a.generation = p_generation
               AND a.attempt_id >= callgate_uuid_floor_v1(p_created_at - interval '1 day'));
END $$;
