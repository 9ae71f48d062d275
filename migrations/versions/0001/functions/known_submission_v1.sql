-- callgate_known_submission_v1: answer a submission that was stored before: the client did not get the first answer.
--
-- s          the stored submission.
-- p_call_id  the call that the submission names now. It must be the same as before.
-- Returns    outcome: created | replayed | failed | joined; and the call's generation and state.
CREATE FUNCTION callgate_known_submission_v1(
    s submission, p_call_id uuid, OUT outcome text, OUT generation int, OUT state text
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF s.call_id <> p_call_id THEN
        RAISE EXCEPTION 'submission id % was used before, for another call', s.submission_id
            USING ERRCODE = 'data_exception';
    END IF;
    SELECT l.generation, l.state INTO STRICT generation, state FROM llm_call l
     WHERE l.call_id = s.call_id AND l.generation = s.generation;
    outcome := CASE
        WHEN state = 'queued' AND s.outcome = 'created' THEN 'created'
        WHEN state = 'succeeded' THEN 'replayed'
        WHEN state = 'dead' THEN 'failed'
        ELSE 'joined' END;
END $$;
