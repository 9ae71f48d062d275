-- callgate_is_raised_v1: whether a submission raises an open call: to a higher class, or a later deadline. A call that runs
-- may have to be tried again.
CREATE FUNCTION callgate_is_raised_v1(c llm_call, p_priority smallint, p_start_before timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce((c).state IN ('queued', 'waiting', 'running')
                    AND ((c).priority < p_priority OR p_start_before > (c).start_before
                         OR p_start_before IS NULL AND (c).start_before IS NOT NULL), false)
$$;
