-- callgate_deliver_v1: record the results of deliveries, and remove calls without a link to deliver from
-- undelivered_call.
--
-- p_failures  null: the link was published. Otherwise why it was not.
-- p_again_s   when to try again after a failure; null: never.
-- Locks       the submissions, then the rows of undelivered_call: SKIP LOCKED. links_v1 finds skipped rows again. A
--             client may hold its own submission; until it ends its transaction, its link is published again and again.
CREATE FUNCTION callgate_deliver_v1(p_submission_ids uuid[], p_failures text[], p_again_s float8[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    u record;
BEGIN
    WITH free AS MATERIALIZED (
        SELECT s.submission_id FROM submission s WHERE s.submission_id = ANY (p_submission_ids)
         ORDER BY s.submission_id FOR UPDATE SKIP LOCKED)
    UPDATE submission s
       SET delivered_at = CASE WHEN o.failure IS NULL THEN now() END,
           tries = s.tries + 1,
           failure = o.failure,
           try_at = now() + make_interval(secs => coalesce(o.again_s, 0)),
           given_up_at = CASE WHEN o.failure IS NOT NULL AND o.again_s IS NULL THEN now() END
      FROM unnest(p_submission_ids, p_failures, p_again_s) AS o(submission_id, failure, again_s)
      JOIN free USING (submission_id)
     WHERE s.submission_id = o.submission_id
       AND s.link IS NOT NULL AND s.delivered_at IS NULL AND s.given_up_at IS NULL;
    FOR u IN
        SELECT x.* FROM undelivered_call x
          JOIN (SELECT DISTINCT s.call_id, s.generation FROM submission s
                 WHERE s.submission_id = ANY (p_submission_ids)) k USING (call_id, generation)
           FOR UPDATE OF x SKIP LOCKED
    LOOP
        PERFORM callgate_reschedule_delivery_v1(u.call_id, u.generation);
    END LOOP;
END $$;
