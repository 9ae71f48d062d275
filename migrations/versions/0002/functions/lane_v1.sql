-- callgate_lane_v1: the queue for a call of an organisation that has calls queued already: `lane_of` in
-- callgate/domain/call_order.py.
--
-- p_ahead_max     how many of its organisation are queued; twice as many with interactive ones.
-- p_queued        its queued calls. p_interactive: those of them that are interactive; only asked for an interactive call.
-- p_is_congested  is_congested_v1.
-- Returns         express: taken before all others. call. Null: it waits in the ledger.
CREATE FUNCTION callgate_lane_v1(p_queued int, p_priority smallint, p_interactive int, p_is_congested boolean,
                                 p_ahead_max int)
RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_queued >= CASE p_priority WHEN 2 THEN 2 ELSE 1 END * p_ahead_max THEN NULL
                WHEN p_is_congested AND (p_queued < 8 OR p_priority = 2 AND p_interactive < 64) THEN 'express'
                ELSE 'call' END
$$;
