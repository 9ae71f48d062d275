-- callgate_quarter_v1: when the quarter hour of a moment began, in UTC. The days of every time zone consist of these.
CREATE FUNCTION callgate_quarter_v1(p_at timestamptz) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT date_bin(interval '15 min', p_at, timestamptz '2000-01-01 00:00:00+00')
$$;
