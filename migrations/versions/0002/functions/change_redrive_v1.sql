-- callgate_change_redrive_v1: pause, resume or abort a redrive, and log who did it and why.
--
-- p_change   pause | resume | abort.
-- p_rate_per_min, p_cap, p_stop_share, p_stop_min  with resume: how it goes on.
-- Locks      the redrive.
-- Returns    whether it was changed. A running one is paused, a paused one resumed; one that has not ended is aborted.
CREATE FUNCTION callgate_change_redrive_v1(
    p_id uuid, p_change text, p_rate_per_min float8, p_cap bigint, p_stop_share float8, p_stop_min int,
    p_operator text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    r redrive%ROWTYPE;
BEGIN
    SELECT * INTO r FROM redrive x WHERE x.id = p_id FOR UPDATE;
    IF r.id IS NULL OR NOT r.state = ANY (CASE p_change
        WHEN 'pause' THEN ARRAY['running']
        WHEN 'resume' THEN ARRAY['paused']
        ELSE ARRAY['planning', 'planned', 'running', 'paused'] END) THEN
        RETURN false;
    END IF;
    IF p_change = 'pause' THEN
        UPDATE redrive x SET state = 'paused', cause = 'operator' WHERE x.id = p_id;
    ELSIF p_change = 'resume' THEN
        UPDATE redrive x
           SET state = 'running', cause = NULL, rate_per_min = p_rate_per_min, cap_nano_usd = p_cap,
               stop_share = p_stop_share, stop_min = p_stop_min, step_at = now(),
               ended_before = x.succeeded + x.failed + x.rejected, failed_before = x.failed + x.rejected
         WHERE x.id = p_id;
    ELSE
        UPDATE redrive x SET state = 'aborted', cause = NULL WHERE x.id = p_id;
        UPDATE redrive_call k SET outcome = 'left', code = 'aborted', changed_at = now()
         WHERE k.redrive_id = p_id AND k.outcome = 'pending';
    END IF;
    PERFORM callgate_note_redrive_v1(p_id);
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'redrive.' || p_change, r.selection ->> 'org_id', 'redrive ' || p_id,
        jsonb_strip_nulls(jsonb_build_object(
            'pending', r.pending, 'released', r.released,
            'rate_per_min', CASE p_change WHEN 'resume' THEN p_rate_per_min END,
            'cap_nano_usd', CASE p_change WHEN 'resume' THEN p_cap END)));
    RETURN true;
END $$;
