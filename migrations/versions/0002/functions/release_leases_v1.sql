-- callgate_release_leases_v1: end the leases of worker processes, and make their calls with unposted attempts due.
--
-- A call that another session holds is skipped. The lease is kept, already expired, so that a later run finds it. A
-- living process sees the new began_at and may renew.
-- Locks     the leases, by worker_id, then the calls that no other session holds. No session locks a lease after a
--           call. The attempts are read again once the calls are locked, because a call may have a newer attempt by
--           then, of a living process.
-- Refused   if a call cannot be updated, it is skipped. It becomes due when its attempt expires.
-- Indexes   `posted_at IS NULL` means the same as `posted_nano_usd IS NULL`, and is the condition of an index for this
--           look-up alone. Other statements would scan that whole index.
CREATE FUNCTION callgate_release_leases_v1(p_worker_ids text[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    call_ids uuid[];
    generations int[];
    locked_ids uuid[];
    found record;
    unfinished text[];          -- processes with calls that another session holds and that are not due
BEGIN
    PERFORM 1 FROM worker_lease w WHERE w.worker_id = ANY (p_worker_ids) ORDER BY w.worker_id FOR UPDATE;
    SELECT array_agg(a.call_id), array_agg(a.generation) INTO call_ids, generations
      FROM ai_call_log a
     WHERE split_part(a.worker_id, '/', 1) = ANY (p_worker_ids) AND a.posted_at IS NULL;
    locked_ids := callgate_lock_calls_v1(call_ids, generations);
    FOR found IN
        SELECT l.call_id, l.generation FROM llm_call l JOIN ai_call_log a USING (call_id, generation)
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(locked_ids, generations))
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
      FROM unnest(call_ids, generations, locked_ids) AS k(call_id, generation, locked_id)
      JOIN llm_call l ON l.call_id = k.call_id AND l.generation = k.generation AND l.due_at > now()
      JOIN ai_call_log a ON a.call_id = l.call_id AND a.generation = l.generation AND a.posted_at IS NULL
       AND split_part(a.worker_id, '/', 1) = ANY (p_worker_ids)
     WHERE k.locked_id IS NULL;
    DELETE FROM worker_lease w
     WHERE w.worker_id = ANY (p_worker_ids) AND w.worker_id <> ALL (coalesce(unfinished, '{}'));
    UPDATE worker_lease w
       SET began_at = now(), stable_since = now(), renewed_at = now() - (w.expires_at - w.renewed_at), expires_at = now()
     WHERE w.worker_id = ANY (unfinished);
END $$;
