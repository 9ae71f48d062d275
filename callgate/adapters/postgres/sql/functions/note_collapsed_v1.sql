-- callgate_note_collapsed_v1: append to attempt_delta that a submission was answered without a call of its own. A trigger
-- of submission.
--
-- What it saved is known at once if the call has succeeded; else end_savings_v1 appends that when it does.
-- Locks     nothing.
CREATE FUNCTION callgate_note_collapsed_v1() RETURNS trigger
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO attempt_delta (
        starts_at, org_id, call_type, provider, model, kind, outcome, budget_ids, collapsed, saved_nano_usd)
    SELECT callgate_quarter_v1(NEW.created_at), c.org_id, c.call_type, c.provider, c.model, 'collapsed', NEW.outcome,
           '{}',
           1, CASE WHEN c.state = 'succeeded' THEN callgate_call_cost_v1(c.call_id, c.generation, c.created_at) ELSE 0
                  END
      FROM llm_call c WHERE c.call_id = NEW.call_id AND c.generation = NEW.generation;
    RETURN NULL;
END $$;
