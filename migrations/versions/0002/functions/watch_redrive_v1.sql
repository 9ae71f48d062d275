-- callgate_watch_redrive_v1: see what became of the released calls of a redrive: how they ended, and what they have posted.
--
-- A call has ended here when all of its attempts are posted.
-- Locks     nothing more: its caller holds the redrive. Calls are only read.
CREATE FUNCTION callgate_watch_redrive_v1(p_id uuid) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    UPDATE redrive_call k
       SET posted_nano_usd = seen.posted,
           outcome = CASE WHEN NOT seen.has_ended THEN k.outcome
                          WHEN seen.state = 'succeeded' THEN 'succeeded'
                          WHEN seen.state = 'dead' THEN 'failed'
                          ELSE 'rejected' END,
           code = CASE WHEN seen.has_ended THEN seen.end_reason END,
           changed_at = now()
      FROM (SELECT o.number, c.state, c.end_reason, p.posted,
                   c.state IN ('succeeded', 'dead', 'rejected') AND c.due_at IS NULL AS has_ended, o.posted_nano_usd
              FROM redrive_call o
             CROSS JOIN LATERAL (
                   SELECT l.* FROM llm_call l
                    WHERE l.call_id = o.call_id AND l.generation = o.new_generation OFFSET 0) c
             CROSS JOIN LATERAL (
                   SELECT coalesce(sum(a.posted_nano_usd), 0)::bigint AS posted FROM (
                       SELECT x.posted_nano_usd FROM ai_call_log x
                        WHERE x.call_id = c.call_id AND x.generation = c.generation
                          AND x.attempt_id >= callgate_uuid_floor_v1(c.created_at - interval '1 day')
                       OFFSET 0) a) p
             WHERE o.redrive_id = p_id AND o.outcome = 'released') seen
     WHERE k.redrive_id = p_id AND k.number = seen.number
       AND (seen.has_ended OR seen.posted IS DISTINCT FROM k.posted_nano_usd);
    PERFORM callgate_note_redrive_v1(p_id);
END $$;
