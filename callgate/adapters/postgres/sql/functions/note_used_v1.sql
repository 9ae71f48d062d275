-- callgate_note_used_v1: note the tokens that answers did not use, for limits whose provider counts what was used.
--
-- Without a known usage nothing is given back. The next claim adds the notes to their limits: lock_limits_v1.
-- p_rows    the attempts, by index, that were posted now.
CREATE FUNCTION callgate_note_used_v1(p_attempt_ids uuid[], p_rows int[]) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF NOT EXISTS (SELECT 1 FROM flow_limit l WHERE l.counts_used) THEN
        RETURN;
    END IF;
    INSERT INTO flow_note (limit_id, tokens)
    SELECT l.id, n.tokens
      FROM unnest(p_rows) AS k(row_no)
     CROSS JOIN LATERAL (SELECT * FROM ai_call_log x WHERE x.attempt_id = p_attempt_ids[k.row_no] LIMIT 1) a
      JOIN llm_call c ON c.call_id = a.call_id AND c.generation = a.generation
     CROSS JOIN LATERAL unnest(a.limit_ids) AS u(limit_id)
      JOIN flow_limit l ON l.id = u.limit_id AND l.counts_used
     CROSS JOIN LATERAL (
           SELECT callgate_limit_need_v1(l.measure, c.input_token_bound - a.input_tokens,
                                         coalesce(a.output_token_bound, 0) - a.output_tokens) AS tokens) n
     WHERE a.status IN ('succeeded', 'failed') AND l.measure IN ('input_tokens', 'output_tokens', 'tokens')
       AND n.tokens > 0;
END $$;
