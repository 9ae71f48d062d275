-- callgate_lane_v1: the queue for a call of an organisation that has calls queued already: `lane_of` in
-- callgate/domain/turns.py.
--
-- p_queued        its queued calls. p_interactive: those of them that are interactive; only asked for an interactive call.
-- p_is_congested  is_congested_v1.
-- Returns         express: taken before all others. call. Null: it waits in the ledger.
CREATE FUNCTION callgate_lane_v1(p_queued int, p_priority smallint, p_interactive int, p_is_congested boolean)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_queued >= CASE p_priority WHEN 2 THEN 2000 ELSE 1000 END THEN NULL
                WHEN p_is_congested AND (p_queued < 8 OR p_priority = 2 AND p_interactive < 64) THEN 'express'
                ELSE 'call' END
$$;
