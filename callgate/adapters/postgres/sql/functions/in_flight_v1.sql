-- callgate_in_flight_v1: how many attempts of a key are not posted; at most p_enough are counted.
--
-- They are counted from the rows, so an attempt whose worker was lost is free with the statement that posts it.
-- p_model  a model, or a pattern of models.
CREATE FUNCTION callgate_in_flight_v1(p_provider text, p_model text, p_credential text, p_enough bigint) RETURNS bigint
LANGUAGE sql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT count(*) FROM (
        SELECT 1 FROM ai_call_log a
         WHERE a.posted_nano_usd IS NULL AND a.provider = p_provider AND a.credential = p_credential
           AND a.model LIKE callgate_like_v1(p_model)
         LIMIT p_enough) under_way
$$;
