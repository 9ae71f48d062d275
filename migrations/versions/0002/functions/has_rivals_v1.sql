-- callgate_has_rivals_v1: whether calls of two organisations or more are queued. It costs two look-ups.
--
-- The orders name the index of open calls, whatever Postgres knows of the table.
CREATE FUNCTION callgate_has_rivals_v1() RETURNS boolean
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_incremental_sort = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT (SELECT l.org_id FROM llm_call l WHERE l.state = 'queued' ORDER BY l.org_id, l.priority LIMIT 1)
        <> (SELECT l.org_id FROM llm_call l WHERE l.state = 'queued' ORDER BY l.org_id DESC, l.priority DESC LIMIT 1)
$$;
