-- callgate_deliver_v1: mark links as published; an ended call with none left loses its due_at.
--
-- Locks     the calls by (call_id, generation), so that a link added at this moment is either seen or comes after.
CREATE FUNCTION callgate_deliver_v1(p_submission_ids uuid[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    call_ids uuid[];
    generations int[];
BEGIN
    SELECT array_agg(k.call_id), array_agg(k.generation) INTO call_ids, generations
      FROM (SELECT DISTINCT s.call_id, s.generation FROM submission s
             WHERE s.submission_id = ANY (p_submission_ids)) k;
    PERFORM 1 FROM llm_call l
      WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(call_ids, generations))
      ORDER BY l.call_id, l.generation FOR UPDATE;
    UPDATE submission s SET delivered_at = now()
     WHERE s.submission_id = ANY (p_submission_ids) AND s.link IS NOT NULL AND s.delivered_at IS NULL;
    PERFORM callgate_rest_v1(call_ids, generations);
END $$;
