-- callgate_open_calls_v1: how many open calls an organisation has, for the bound p_max. It is exact until it matters.
--
-- A count reads one index entry per call. So a large count is kept in flow_open, and calls that were created since are
-- added. What has ended since is not subtracted. When the sum reaches the bound, the calls are counted again. For p_max /
-- 100,000 seconds the last count stands: a full organisation costs about a hundredth of a core, and meanwhile hardly a
-- twentieth of its calls can end.
-- Statements that run at the same time do not see each other's calls.
-- Locks     nothing that another session waits for: counts are inserted, older ones are deleted with SKIP LOCKED.
CREATE FUNCTION callgate_open_calls_v1(p_org_id text, p_max int) RETURNS int
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    few CONSTANT int := 2000;   -- so many index entries cost little
    known flow_open%ROWTYPE;
    created int := 0;           -- since the known count
    calls int;
BEGIN
    SELECT o.* INTO known FROM flow_open o WHERE o.org_id = p_org_id ORDER BY o.counted_at DESC LIMIT 1;
    IF FOUND THEN
        SELECT count(*) INTO created FROM (
            SELECT 1 FROM llm_call l WHERE l.generation >= 0 AND l.org_id = p_org_id AND l.created_at >= known.counted_at
             ORDER BY l.created_at DESC LIMIT few) n;
        calls := known.calls + created;
        IF (calls < p_max AND created < few)
           OR (calls >= p_max AND known.counted_at > clock_timestamp() - make_interval(secs => p_max / 1e5)) THEN
            RETURN calls;
        END IF;
    END IF;
    SELECT count(*) INTO calls FROM (
        SELECT 1 FROM llm_call l WHERE l.org_id = p_org_id AND l.state IN ('queued', 'running', 'waiting')
         LIMIT few) n;
    IF calls = few AND p_max > few THEN
        SELECT count(*) INTO calls FROM (
            SELECT 1 FROM llm_call l WHERE l.org_id = p_org_id AND l.state IN ('queued', 'running', 'waiting')
             LIMIT p_max) n;
        -- now(): calls of this statement, and of those that began later, are created since.
        INSERT INTO flow_open (org_id, counted_at, calls) VALUES (p_org_id, now(), calls) ON CONFLICT DO NOTHING;
    END IF;
    IF known.org_id IS NOT NULL THEN
        DELETE FROM flow_open o
         WHERE o.org_id = p_org_id AND o.counted_at IN (
               SELECT x.counted_at FROM flow_open x
                WHERE x.org_id = p_org_id AND x.counted_at <= known.counted_at FOR UPDATE SKIP LOCKED);
    END IF;
    RETURN calls;
END $$;
