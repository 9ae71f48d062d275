-- callgate_release_leases_v1: end leases; whatever their processes left unposted is due now.
--
-- Locks     the leases by worker_id, then the calls by (call_id, generation). Nobody takes a lease after a call. What was
--           found before the calls were locked is looked at again: a call may have another attempt by then, of a process
--           that is alive.
-- Indexes   `posted_at IS NULL` says what `posted_nano_usd IS NULL` says, and is the condition of an index that is meant
--           for this look-up alone: other statements would scan the whole of it.
CREATE FUNCTION callgate_release_leases_v1(p_worker_ids text[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    call_ids uuid[];
    generations int[];
BEGIN
    PERFORM 1 FROM worker_lease w WHERE w.worker_id = ANY (p_worker_ids) ORDER BY w.worker_id FOR UPDATE;
    SELECT array_agg(a.call_id), array_agg(a.generation) INTO call_ids, generations
      FROM ai_call_log a
     WHERE split_part(a.worker_id, '/', 1) = ANY (p_worker_ids) AND a.posted_at IS NULL;
    PERFORM 1 FROM llm_call l
      WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(call_ids, generations))
      ORDER BY l.call_id, l.generation FOR UPDATE;
    UPDATE llm_call l SET due_at = now()
      FROM ai_call_log a
     WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(call_ids, generations))
       AND l.due_at > now()
       AND a.call_id = l.call_id AND a.generation = l.generation AND a.posted_at IS NULL
       AND split_part(a.worker_id, '/', 1) = ANY (p_worker_ids);
    DELETE FROM worker_lease w WHERE w.worker_id = ANY (p_worker_ids);
END $$;
