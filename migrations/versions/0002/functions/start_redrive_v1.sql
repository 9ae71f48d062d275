-- callgate_start_redrive_v1: let workers release the calls of a planned redrive, and log who did it and why.
--
-- p_expected       so many calls it must release, or nothing is changed.
-- p_unknown_bills  of calls of which an attempt may have been billed: refuse | skip | pay_again.
-- p_stop_share, p_stop_min  it pauses if this share of so many ended calls has failed again.
-- Locks            the redrive.
-- Returns          whether it was started.
CREATE FUNCTION callgate_start_redrive_v1(
    p_id uuid, p_expected int, p_unknown_bills text, p_rate_per_min float8, p_cap bigint, p_stop_share float8,
    p_stop_min int, p_operator text, p_reason text
) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    r redrive%ROWTYPE;
    left_out int;
BEGIN
    SELECT * INTO r FROM redrive x WHERE x.id = p_id FOR UPDATE;
    IF r.id IS NULL OR r.state <> 'planned' OR r.unknown > 0 AND p_unknown_bills = 'refuse' THEN
        RETURN false;
    END IF;
    left_out := CASE p_unknown_bills WHEN 'skip' THEN r.unknown ELSE 0 END;
    IF r.pending - left_out <> p_expected THEN
        RETURN false;
    END IF;
    IF left_out > 0 THEN
        UPDATE redrive_call k SET outcome = 'skipped', code = 'unknown_bill', changed_at = now()
         WHERE k.redrive_id = p_id AND k.outcome = 'pending' AND k.has_unknown_bill;
    END IF;
    UPDATE redrive x
       SET state = 'running', operator = p_operator, reason = p_reason, rate_per_min = p_rate_per_min,
           cap_nano_usd = p_cap, stop_share = p_stop_share, stop_min = p_stop_min, started_at = now(), step_at = now()
     WHERE x.id = p_id;
    PERFORM callgate_note_redrive_v1(p_id);
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'redrive.start', r.selection ->> 'org_id', 'redrive ' || p_id,
        jsonb_strip_nulls(jsonb_build_object(
            'calls', p_expected, 'worst_case_nano_usd', x.worst_case_nano_usd, 'unknown_bills', p_unknown_bills,
            'rate_per_min', p_rate_per_min, 'cap_nano_usd', p_cap)))
       FROM redrive x WHERE x.id = p_id;
    RETURN true;
END $$;
