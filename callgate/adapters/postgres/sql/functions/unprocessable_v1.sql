-- callgate_unprocessable_v1: list messages that named no call, newest first, without their content.
--
-- p_before_id  null, or the message after which the list goes on.
-- Returns   at most 1,000.
CREATE FUNCTION callgate_unprocessable_v1(p_before_id bigint, p_limit int)
RETURNS TABLE (message_id bigint, at timestamptz, queue text, reason text, size_bytes int)
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
    SELECT m.id, m.at, m.queue, m.reason, octet_length(m.raw) FROM unprocessable_message m
     WHERE p_before_id IS NULL OR m.id < p_before_id
     ORDER BY m.id DESC LIMIT least(p_limit, 1000)
$$;
