-- callgate_note_redrive_v1: sum up the calls of a redrive, and move it to the state that follows.
--
-- Rules     planning is planned once all calls are priced. What has started has ended once no call is pending or open; so
--           has what was aborted.
-- Locks     nothing more: its caller holds the redrive.
CREATE FUNCTION callgate_note_redrive_v1(p_id uuid) RETURNS void
LANGUAGE sql SET enable_seqscan = off AS $$
    UPDATE redrive r
       SET calls = n.calls, unpriced = n.unpriced, pending = n.pending, released = n.released, succeeded = n.succeeded,
           failed = n.failed, rejected = n.rejected, refused = n.refused, skipped = n.skipped, left_alone = n.left_alone,
           unknown = n.unknown, worst_case_nano_usd = n.worst, open_nano_usd = n.open, posted_nano_usd = n.posted,
           state = CASE
               WHEN r.state = 'planning' AND n.unpriced = 0 THEN 'planned'
               WHEN r.state IN ('running', 'paused') AND n.pending + n.released = 0 THEN 'done'
               ELSE r.state END,
           cause = CASE WHEN n.pending + n.released > 0 THEN r.cause END,
           ended_at = CASE
               WHEN r.state IN ('running', 'paused', 'aborted', 'done', 'expired') AND n.pending + n.released = 0
               THEN coalesce(r.ended_at, now()) END
      FROM (SELECT count(*) AS calls,
                   count(*) FILTER (WHERE c.outcome = 'pending' AND c.worst_case_nano_usd IS NULL) AS unpriced,
                   count(*) FILTER (WHERE c.outcome = 'pending') AS pending,
                   count(*) FILTER (WHERE c.outcome = 'released') AS released,
                   count(*) FILTER (WHERE c.outcome = 'succeeded') AS succeeded,
                   count(*) FILTER (WHERE c.outcome = 'failed') AS failed,
                   count(*) FILTER (WHERE c.outcome = 'rejected') AS rejected,
                   count(*) FILTER (WHERE c.outcome = 'refused') AS refused,
                   count(*) FILTER (WHERE c.outcome = 'skipped') AS skipped,
                   count(*) FILTER (WHERE c.outcome = 'left') AS left_alone,
                   count(*) FILTER (WHERE c.outcome = 'pending' AND c.has_unknown_bill) AS unknown,
                   coalesce(sum(c.worst_case_nano_usd) FILTER (WHERE c.outcome = 'pending'), 0)::bigint AS worst,
                   coalesce(sum(c.worst_case_nano_usd + coalesce(c.posted_nano_usd, 0))
                            FILTER (WHERE c.outcome = 'released'), 0)::bigint AS open,
                   coalesce(sum(c.posted_nano_usd) FILTER (WHERE c.outcome <> 'released'), 0)::bigint AS posted
              FROM redrive_call c WHERE c.redrive_id = p_id) n
     WHERE r.id = p_id
$$;
