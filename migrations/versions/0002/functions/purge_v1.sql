-- callgate_purge_v1: remove the bodies of up to p_limit calls that ended long ago, and keep the accounting.
--
-- Bodies    the request, the replies of all attempts, and the links of the submissions. A call is purged as a whole.
-- Ages      p_ages_s, in seconds, by organisation; p_default_age_s for the others; null: keep for good. The age of a
--           call counts from its last posting, or from its submission if it never ran.
-- Spared    calls that are open, or have a link to deliver or money to post. An ended call that has no due_at and is
--           not in undelivered_call has neither. Also calls with a late answer that is not settled yet, because its
--           usage is in the reply.
-- Messages  unprocessable messages belong to no organisation. Those older than p_default_age_s are deleted.
-- Locks     the calls: SKIP LOCKED. Then the attempts, by id.
-- Returns   how many calls were purged (with p_dry_run: would be), and how many unprocessable messages were deleted.
CREATE FUNCTION callgate_purge_v1(
    p_org_ids text[], p_ages_s float8[], p_default_age_s float8, p_limit int, p_dry_run boolean
) RETURNS TABLE (calls int, unprocessable_messages int)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    org text := '';
    age_s float8;
    ended_before timestamptz;
    call_ids uuid[];
    generations int[];
    first_id uuid;
    attempt_ids uuid[];
BEGIN
    calls := 0;
    WHILE calls < p_limit LOOP
        SELECT l.org_id INTO org FROM llm_call l
         WHERE l.request IS NOT NULL AND l.due_at IS NULL AND l.org_id > org
         ORDER BY l.org_id LIMIT 1;
        EXIT WHEN NOT FOUND;
        age_s := CASE WHEN org = ANY (p_org_ids) THEN p_ages_s[array_position(p_org_ids, org)]
                      ELSE p_default_age_s END;
        CONTINUE WHEN age_s IS NULL;
        ended_before := now() - make_interval(secs => age_s);

        SELECT array_agg(k.call_id), array_agg(k.generation),
               callgate_uuid_floor_v1(min(k.created_at) - interval '1 day')
          INTO call_ids, generations, first_id
          FROM (SELECT l.call_id, l.generation, l.created_at FROM llm_call l
                 WHERE l.org_id = org AND l.request IS NOT NULL AND l.due_at IS NULL
                   AND l.created_at <= ended_before
                   AND NOT EXISTS (SELECT 1 FROM undelivered_call u
                                    WHERE u.call_id = l.call_id AND u.generation = l.generation)
                   AND NOT EXISTS (
                       SELECT 1 FROM ai_call_log a
                        WHERE a.call_id = l.call_id AND a.generation = l.generation
                          AND a.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                          AND (a.posted_at IS NULL OR a.posted_at > ended_before
                               OR a.status = 'unknown' AND a.finished_at > a.posted_at)
                       -- Asked for each call by itself: a join may scan all partitions.
                       OFFSET 0)
                 ORDER BY l.created_at LIMIT p_limit - calls FOR UPDATE SKIP LOCKED) k;
        calls := calls + coalesce(cardinality(call_ids), 0);
        CONTINUE WHEN p_dry_run OR call_ids IS NULL;

        UPDATE llm_call l SET request = NULL
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(call_ids, generations));
        attempt_ids := ARRAY(
            SELECT a.attempt_id FROM unnest(call_ids, generations) AS k(call_id, generation)
              JOIN ai_call_log a ON a.call_id = k.call_id AND a.generation = k.generation
               AND a.attempt_id >= first_id);
        PERFORM callgate_lock_attempts_v1(attempt_ids);
        -- A late answer that arrives now keeps its reply, because its usage is in it. Settling it removes the reply.
        UPDATE ai_call_log a SET reply = NULL
         WHERE a.attempt_id = ANY (attempt_ids)
           AND a.attempt_id >= first_id
           AND a.reply IS NOT NULL AND NOT (a.status = 'unknown' AND a.finished_at > a.posted_at);
        -- A client may have locked its own submission. That one keeps its link.
        UPDATE submission s SET link = NULL
         WHERE s.submission_id IN (
               SELECT x.submission_id FROM unnest(call_ids, generations) AS k(call_id, generation)
                 JOIN submission x USING (call_id, generation)
                -- A link that was added meanwhile is still to be delivered, and stays.
                WHERE x.link IS NOT NULL AND (x.delivered_at IS NOT NULL OR x.given_up_at IS NOT NULL)
                  FOR UPDATE OF x SKIP LOCKED);
    END LOOP;

    SELECT count(*) INTO unprocessable_messages FROM (
        SELECT 1 FROM unprocessable_message s
         WHERE s.at <= now() - make_interval(secs => p_default_age_s) LIMIT p_limit) old;
    IF unprocessable_messages > 0 AND NOT p_dry_run THEN
        DELETE FROM unprocessable_message WHERE id IN (
            SELECT s.id FROM unprocessable_message s
             WHERE s.at <= now() - make_interval(secs => p_default_age_s)
             ORDER BY s.id LIMIT p_limit FOR UPDATE SKIP LOCKED);
        GET DIAGNOSTICS unprocessable_messages = ROW_COUNT;
    END IF;
    RETURN NEXT;
END $$;
