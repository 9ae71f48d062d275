-- callgate_limit_wait_v1: after how many seconds a request of p_units fits into a limit; 0: now.
--
-- Rules     `Limit.wait_s` in callgate/domain/limits.py. The request is not larger than the whole limit.
CREATE FUNCTION callgate_limit_wait_v1(l flow_limit, p_units bigint, p_at timestamptz) RETURNS float8
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN p_units > (l).amount / 2.0
                THEN coalesce(greatest(0, (l).window_s + 1 - extract(epoch FROM p_at - (l).granted_at)::float8), 0)
                ELSE greatest(0, (p_units - (l).level) / callgate_limit_refill_v1(l)) END
$$;
