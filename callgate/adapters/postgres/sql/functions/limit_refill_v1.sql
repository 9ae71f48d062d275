-- callgate_limit_refill_v1: how many units of a limit come back in a second: `Limit.refill_per_s`.
CREATE FUNCTION callgate_limit_refill_v1(l flow_limit) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ((l).amount - callgate_limit_capacity_v1((l).amount, (l).window_s, (l).largest)
            + CASE (l).measure WHEN 'requests' THEN 1 ELSE 0 END) / ((l).window_s + 1)::float8
$$;
