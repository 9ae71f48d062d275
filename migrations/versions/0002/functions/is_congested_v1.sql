-- callgate_is_congested_v1: whether so many calls are queued that one at the end of the queue would wait.
CREATE FUNCTION callgate_is_congested_v1() RETURNS boolean
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT count(*) >= 64 FROM (SELECT 1 FROM llm_call l WHERE l.state = 'queued' LIMIT 64) q
$$;
