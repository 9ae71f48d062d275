-- callgate_limit_capacity_v1: how many units of a limit may be used at once: `Limit.capacity`.
--
-- p_largest  the largest recent request. 0: the capacity without large requests (`Limit.burst`).
CREATE FUNCTION callgate_limit_capacity_v1(p_amount bigint, p_window_s int, p_largest bigint) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT least(p_amount / 2.0::float8,
                 greatest(1, p_amount * CASE WHEN p_window_s >= 3600 THEN 0.5 ELSE 0.03 END::float8, p_largest))
$$;
