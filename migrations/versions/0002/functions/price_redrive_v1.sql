-- callgate_price_redrive_v1: keep what calls of a redrive can cost at worst, or why they cannot be released, and whether an
-- attempt of them has an unknown bill.
--
-- p_lease     of take_redrive_v1. If it is not the newest one, nothing is changed.
-- p_refusals  the code of a refusal; null: it can be released.
-- Locks       the redrive.
CREATE FUNCTION callgate_price_redrive_v1(
    p_id uuid, p_lease uuid, p_numbers int[], p_worst_cases bigint[], p_inputs int[], p_outputs int[], p_refusals text[]
) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM 1 FROM redrive r WHERE r.id = p_id AND r.lease_id = p_lease AND r.state = 'planning' FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE redrive_call k
       SET outcome = CASE WHEN p.refusal IS NULL THEN 'pending' ELSE 'refused' END,
           code = left(p.refusal, 128), worst_case_nano_usd = p.worst, input_token_bound = p.input,
           output_token_bound = p.output, changed_at = now(),
           has_unknown_bill = EXISTS (
               SELECT 1 FROM llm_call l
                CROSS JOIN LATERAL (
                      SELECT x.status, x.anomalies, x.settled_by_hand_at FROM ai_call_log x
                       WHERE x.call_id = l.call_id AND x.generation = l.generation
                         AND x.attempt_id >= callgate_uuid_floor_v1(l.created_at - interval '1 day')
                      OFFSET 0) a
                WHERE l.call_id = k.call_id AND l.generation = k.generation
                  AND callgate_bill_unknown_v1(a.status, a.anomalies) AND a.settled_by_hand_at IS NULL)
      FROM unnest(p_numbers, p_worst_cases, p_inputs, p_outputs, p_refusals) AS p(number, worst, input, output, refusal)
     WHERE k.redrive_id = p_id AND k.number = p.number AND k.outcome = 'pending';
    UPDATE redrive r SET step_at = now() WHERE r.id = p_id;
    PERFORM callgate_note_redrive_v1(p_id);
END $$;
