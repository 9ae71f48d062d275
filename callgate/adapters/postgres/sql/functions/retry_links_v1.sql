-- callgate_retry_links_v1: have links delivered now that the broker refused, with as many tries as a new link; and log
-- who did it and why.
--
-- Locks     the submissions that no other session holds, then the rows of undelivered_call of their calls.
-- Returns   the links that are tried. Delivered, purged and unknown ones are left out; if there are only such, nothing
--           is logged.
CREATE FUNCTION callgate_retry_links_v1(p_submission_ids uuid[], p_operator text, p_reason text)
RETURNS SETOF uuid
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    chosen uuid[];
    u record;
BEGIN
    IF cardinality(p_submission_ids) > 1000 THEN
        RAISE EXCEPTION 'at most 1000 links at a time are tried' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    WITH free AS MATERIALIZED (
        SELECT s.submission_id FROM submission s
         WHERE s.submission_id = ANY (p_submission_ids) AND s.failure IS NOT NULL
           AND s.link IS NOT NULL AND s.delivered_at IS NULL
         ORDER BY s.submission_id FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE submission s SET given_up_at = NULL, tries = 0, try_at = now()
          FROM free WHERE s.submission_id = free.submission_id RETURNING s.submission_id)
    SELECT array_agg(f.submission_id ORDER BY f.submission_id) INTO chosen FROM freed f;
    IF chosen IS NULL THEN
        RETURN;
    END IF;
    FOR u IN
        SELECT DISTINCT s.call_id, s.generation, s.org_id FROM submission s WHERE s.submission_id = ANY (chosen)
         ORDER BY s.call_id, s.generation
    LOOP
        PERFORM callgate_schedule_delivery_v1(u.call_id, u.generation, u.org_id, interval '0');
    END LOOP;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'links.retry',
        (SELECT min(s.org_id) FROM submission s WHERE s.submission_id = ANY (chosen) HAVING count(DISTINCT s.org_id) = 1),
        cardinality(chosen) || ' links', jsonb_build_object('first', chosen[1], 'links', cardinality(chosen)));
    RETURN QUERY SELECT unnest(chosen);
END $$;
