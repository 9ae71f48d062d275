-- callgate_release_leases_v1: give the leases away; whatever their processes left unposted is due now.
--
-- A call that somebody holds at this moment is left for the next time: its lease stays, but begins now and has run out at once.
-- So who expires leases comes back to it, last in turn, while its process, if that is alive, learns from began_at that it
-- was given away. A process that renews it first has the rest of its calls back.
-- Locks     the leases by worker_id, then the calls that nobody else holds (hold_v1). Nobody takes a lease after a call. What
--           was found before the calls were locked is looked at again: a call may have another attempt by then, of a process
--           that is alive.
-- Refused   a call that takes no change stops none of the others: it falls due with its attempt's deadline.
-- Indexes   `posted_at IS NULL` says what `posted_nano_usd IS NULL` says, and is the condition of an index that is meant
--           for this look-up alone: other statements would scan the whole of it.
CREATE FUNCTION callgate_release_leases_v1(p_worker_ids text[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    call_ids uuid[];
    generations int[];
    held_ids uuid[];
    found record;
    unfinished text[];          -- processes with calls that are not due, and that somebody holds
BEGIN
    PERFORM 1 FROM worker_lease w WHERE w.worker_id = ANY (p_worker_ids) ORDER BY w.worker_id FOR UPDATE;
    SELECT array_agg(a.call_id), array_agg(a.generation) INTO call_ids, generations
      FROM ai_call_log a
     WHERE split_part(a.worker_id, '/', 1) = ANY (p_worker_ids) AND a.posted_at IS NULL;
    held_ids := callgate_hold_v1(call_ids, generations);
    FOR found IN
        SELECT l.call_id, l.generation FROM llm_call l JOIN ai_call_log a USING (call_id, generation)
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(held_ids, generations))
           AND l.due_at > now() AND a.posted_at IS NULL AND split_part(a.worker_id, '/', 1) = ANY (p_worker_ids)
    LOOP
        BEGIN
            UPDATE llm_call l SET due_at = now()
             WHERE l.call_id = found.call_id AND l.generation = found.generation;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception OR program_limit_exceeded THEN
            RAISE WARNING 'call %.% cannot be made due: %', found.call_id, found.generation, SQLERRM;
        END;
    END LOOP;

    SELECT array_agg(DISTINCT split_part(a.worker_id, '/', 1)) INTO unfinished
      FROM unnest(call_ids, generations, held_ids) AS k(call_id, generation, held_id)
      JOIN llm_call l ON l.call_id = k.call_id AND l.generation = k.generation AND l.due_at > now()
      JOIN ai_call_log a ON a.call_id = l.call_id AND a.generation = l.generation AND a.posted_at IS NULL
       AND split_part(a.worker_id, '/', 1) = ANY (p_worker_ids)
     WHERE k.held_id IS NULL;
    DELETE FROM worker_lease w
     WHERE w.worker_id = ANY (p_worker_ids) AND w.worker_id <> ALL (coalesce(unfinished, '{}'));
    UPDATE worker_lease w
       SET began_at = now(), stable_since = now(), renewed_at = now() - (w.expires_at - w.renewed_at), expires_at = now()
     WHERE w.worker_id = ANY (unfinished);
END $$;
