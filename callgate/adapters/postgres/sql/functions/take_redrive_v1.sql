-- callgate_take_redrive_v1: take the redrive that has waited longest for a worker, and has something to do.
--
-- First it sees what became of released calls, pauses a redrive of which too many calls have failed again, and ends what
-- is too old. It looks at twenty redrives at most.
--
-- Rules           callgate/domain/redrive_rules.py.
-- p_lease_s       nobody else takes it for so long.
-- p_step_max      so many calls at once.
-- p_open_max      so many released calls of one redrive may be open.
-- p_catch_up_s    what the rate allowed earlier is lost.
-- p_watch_s       a redrive with nothing to do is looked at again after so long.
-- p_plan_expires_s, p_expires_s  how long a plan may wait for its start, and how long a redrive may take.
-- Locks           redrives: SKIP LOCKED.
-- Returns         the redrive, its new lease, and the calls to price (planning) or to release (running); or nothing.
CREATE FUNCTION callgate_take_redrive_v1(
    p_lease_s float8, p_step_max int, p_open_max int, p_catch_up_s float8, p_watch_s float8, p_plan_expires_s float8,
    p_expires_s float8
) RETURNS TABLE (redrive_id uuid, lease_id uuid, state text, numbers int[], call_ids uuid[], generations int[])
LANGUAGE plpgsql SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    r redrive%ROWTYPE;
    room int;
BEGIN
    FOR looked IN 1 .. 20 LOOP
        SELECT * INTO r FROM redrive x WHERE x.ended_at IS NULL AND x.step_at <= now()
         ORDER BY x.step_at LIMIT 1 FOR UPDATE SKIP LOCKED;
        EXIT WHEN NOT FOUND;
        IF r.released > 0 THEN
            PERFORM callgate_watch_redrive_v1(r.id);
            SELECT * INTO r FROM redrive x WHERE x.id = r.id;
        END IF;
        IF r.ended_at IS NULL AND (r.state IN ('planning', 'planned') AND r.created_at <= now() - make_interval(secs => p_plan_expires_s)
           OR r.state IN ('running', 'paused') AND r.started_at <= now() - make_interval(secs => p_expires_s)) THEN
            r.state := CASE WHEN r.state IN ('planning', 'planned') THEN 'expired' ELSE 'aborted' END;
            UPDATE redrive x SET state = r.state, cause = NULL WHERE x.id = r.id;
            UPDATE redrive_call k SET outcome = 'left', code = 'expired', changed_at = now()
             WHERE k.redrive_id = r.id AND k.outcome = 'pending';
            PERFORM callgate_note_redrive_v1(r.id);
        ELSIF r.state = 'running' AND r.succeeded + r.failed + r.rejected - r.ended_before >= r.stop_min
           AND r.failed + r.rejected - r.failed_before
               >= r.stop_share * (r.succeeded + r.failed + r.rejected - r.ended_before) THEN
            r.state := 'paused';
            UPDATE redrive x SET state = 'paused', cause = 'failures' WHERE x.id = r.id;
        END IF;
        room := CASE r.state
            WHEN 'planning' THEN p_step_max
            WHEN 'running' THEN callgate_redrive_room_v1(r, p_step_max, p_open_max, p_catch_up_s)
            ELSE 0 END;
        SELECT array_agg(k.number), array_agg(k.call_id), array_agg(k.generation) INTO numbers, call_ids, generations
          FROM (SELECT c.number, c.call_id, c.generation FROM redrive_call c
                 WHERE c.redrive_id = r.id AND c.outcome = 'pending' AND c.try_at <= now()
                   AND (r.state = 'running' OR c.worst_case_nano_usd IS NULL)
                 ORDER BY c.number LIMIT room) k;
        IF numbers IS NOT NULL THEN
            redrive_id := r.id;
            lease_id := gen_random_uuid();
            state := r.state;
            UPDATE redrive x SET lease_id = callgate_take_redrive_v1.lease_id, step_at = now() + make_interval(secs => p_lease_s)
             WHERE x.id = r.id;
            RETURN NEXT;
            RETURN;
        END IF;
        UPDATE redrive x SET step_at = now() + make_interval(secs => p_watch_s) WHERE x.id = r.id;
    END LOOP;
END $$;
