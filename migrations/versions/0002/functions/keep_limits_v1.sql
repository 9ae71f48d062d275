-- callgate_keep_limits_v1: store limits as a batch of claims has left them.
--
-- The amount of an observed limit is computed each time, and is not stored.
-- Locks     nothing. The caller holds the limits.
CREATE FUNCTION callgate_keep_limits_v1(p_limits flow_limit[]) RETURNS void
LANGUAGE sql SET enable_seqscan = off AS $$
    UPDATE flow_limit x
       SET level = l.level, leveled_at = l.leveled_at, largest = l.largest, largest_at = l.largest_at,
           granted_at = l.granted_at
      FROM unnest(p_limits) AS l
     WHERE x.id = l.id
$$;
