-- callgate_free_concurrency_waiters_v1: make calls due that wait until fewer calls of their organisation run, as many as
-- find a place now.
--
-- Rules     `Places.next_of` in callgate/domain/concurrency.py. Calls that were woken before and do not run yet count.
--           Paused calls are passed over, whole groups at a time, so that their number does not matter. Of an
--           organisation a hundred groups are looked at, from a random one on (lines_v1).
-- This is a hint, not an admission: reserve_v2 decides again.
-- p_org_ids  only these organisations; null: a hundred in which calls wait, chosen at random.
-- Locks     waiting calls: SKIP LOCKED, so that the order of locks is kept.
-- Returns   whether any call was made due.
CREATE FUNCTION callgate_free_concurrency_waiters_v1(p_org_ids text[]) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    at_once_max CONSTANT int := 1000;
    has_pauses boolean;
    org text;
    room int;                   -- of the organisation
    has_freed boolean := false;
BEGIN
    IF NOT EXISTS (SELECT 1 FROM llm_call l WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')) THEN
        RETURN false;
    END IF;
    has_pauses := EXISTS (SELECT 1 FROM pause);
    FOR org IN
        WITH RECURSIVE waiting (org_id) AS (
            (SELECT l.org_id FROM llm_call l
              WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited') AND p_org_ids IS NULL ORDER BY l.org_id LIMIT 1)
            UNION ALL
            SELECT (SELECT l.org_id FROM llm_call l
                     WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited') AND l.org_id > w.org_id
                     ORDER BY l.org_id LIMIT 1)
              FROM waiting w WHERE w.org_id IS NOT NULL
        )
        SELECT o.org_id FROM (SELECT w.org_id FROM waiting w UNION ALL SELECT unnest(p_org_ids)) o
         WHERE o.org_id IS NOT NULL ORDER BY random() LIMIT 100
    LOOP
        room := callgate_concurrency_max_v1('organisation', org);
        IF room IS NULL THEN
            room := at_once_max;
        ELSE
            room := room - callgate_running_v1(org, NULL, room);
        END IF;
        CONTINUE WHEN room <= 0;
        BEGIN
        WITH woken AS MATERIALIZED (
            -- In the order of an index, so that calls that are not due are not read.
            SELECT l.call_type, count(*)::int AS calls
              FROM (SELECT x.call_type FROM llm_call x
                     WHERE x.is_in_line AND (x.state = 'queued' OR x.wait_reason = 'concurrency_limited')
                       AND x.org_id = org AND x.due_at <= now()
                     ORDER BY x.due_at LIMIT 2 * at_once_max) l
             GROUP BY l.call_type
        ), kind AS MATERIALIZED (
            SELECT k.* FROM callgate_lines_v1(org) k
             WHERE NOT (has_pauses AND callgate_pause_of_v1(org, k.call_type, k.provider, k.model) IS NOT NULL)
        ), line AS MATERIALIZED (
            SELECT t.call_type,
                   CASE WHEN m.amount IS NULL THEN at_once_max
                        ELSE m.amount - callgate_running_v1(org, t.call_type, m.amount) END
                   - coalesce(w.calls, 0) AS room
              FROM (SELECT DISTINCT k.call_type FROM kind k) t
             CROSS JOIN LATERAL (SELECT callgate_concurrency_max_v1('call_type', t.call_type) AS amount OFFSET 0) m
              LEFT JOIN woken w ON w.call_type = t.call_type
        ), places AS MATERIALIZED (
            SELECT greatest(0, room - coalesce(sum(w.calls), 0)) AS free FROM woken w
        ), candidate AS MATERIALIZED (
            SELECT x.*, row_number() OVER (PARTITION BY i.call_type ORDER BY x.rank_at) <= i.room AS has_room
              FROM places p CROSS JOIN line i JOIN kind k ON k.call_type = i.call_type
             CROSS JOIN LATERAL (
                SELECT l.call_id, l.generation, l.rank_at FROM llm_call l
                 WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited') AND l.org_id = org
                   AND hashtext(l.call_type) = hashtext(k.call_type) AND l.call_type = k.call_type
                   AND l.provider = k.provider AND l.model = k.model AND l.state = 'waiting' AND l.due_at > now()
                 ORDER BY l.rank_at LIMIT least(p.free, greatest(0, i.room)) FOR UPDATE SKIP LOCKED) x
        ), next AS (
            SELECT c.call_id, c.generation FROM candidate c WHERE c.has_room
             ORDER BY c.rank_at LIMIT (SELECT p.free FROM places p)
        )
        UPDATE llm_call l SET due_at = now() FROM next
         WHERE l.call_id = next.call_id AND l.generation = next.generation;
        has_freed := has_freed OR FOUND;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
            -- A row cannot be updated. The other organisations, and the settlement that asked, go on.
            RAISE WARNING 'calls of % that wait for a place were not made due: %', org, SQLERRM;
        END;
    END LOOP;
    RETURN has_freed;
END $$;
