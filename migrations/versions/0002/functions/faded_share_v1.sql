-- callgate_faded_share_v1: how much counts now of a share that was noted at p_noted_at: after p_fades_s seconds about a
-- third of it.
CREATE FUNCTION callgate_faded_share_v1(p_share float8, p_noted_at timestamptz, p_fades_s float8) RETURNS float8
LANGUAGE sql STABLE AS $$
    SELECT p_share * exp(-least(greatest(0, extract(epoch FROM now() - p_noted_at)::float8 / p_fades_s), 10))
$$;
