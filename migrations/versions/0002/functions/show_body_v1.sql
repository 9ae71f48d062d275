-- callgate_show_body_v1: one body of a call, and log who read it and why.
--
-- p_attempt_id  whose reply; null: the request of the call.
-- p_max_bytes   of a longer body its beginning is returned.
-- Locks         none. It adds a row to operator_action.
-- Returns       no row, if there is no such call or attempt; then nothing is logged. body: null if it was purged, or if
--               the attempt had no reply. bytes: its whole size, or 0.
CREATE FUNCTION callgate_show_body_v1(
    p_call_id uuid, p_generation int, p_attempt_id uuid, p_max_bytes int, p_operator text, p_reason text
) RETURNS TABLE (body bytea, bytes int)
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
    org text;
BEGIN
    IF p_attempt_id IS NULL THEN
        SELECT c.org_id, substring(c.request FOR p_max_bytes), octet_length(c.request) INTO org, body, bytes
          FROM llm_call c WHERE c.call_id = p_call_id AND c.generation = p_generation;
    ELSE
        SELECT a.org_id, substring(a.reply FOR p_max_bytes), octet_length(a.reply) INTO org, body, bytes
          FROM ai_call_log a
         WHERE a.attempt_id = p_attempt_id AND a.call_id = p_call_id AND a.generation = p_generation;
    END IF;
    IF org IS NULL OR NOT coalesce(orgs IS NULL OR org = ANY (orgs), false) THEN
        RETURN;
    END IF;
    PERFORM callgate_log_action_v1(
        p_operator, p_reason, 'body.show', org, p_call_id || '.' || p_generation, jsonb_build_object(
            'body', CASE WHEN p_attempt_id IS NULL THEN 'request' ELSE 'reply' END, 'attempt_id', p_attempt_id));
    bytes := coalesce(bytes, 0);
    RETURN NEXT;
END $$;
