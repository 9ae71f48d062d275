-- callgate_wait_for_key_v1: let a call wait until its provider takes requests again, because it has just refused one.
--
-- p_wait_max_s  how long it may wait in total, if it does not wait yet.
-- Locks         nothing. The caller holds the call.
CREATE FUNCTION callgate_wait_for_key_v1(c llm_call, a ai_call_log, p_wait_max_s float8) RETURNS void
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    ends_at CONSTANT timestamptz := coalesce(c.wait_until, now() + make_interval(secs => p_wait_max_s));
BEGIN
    UPDATE llm_call l
       SET wait_reason = 'rate_limited', due_at = least(ends_at, l.start_before), wait_until = ends_at,
           output_token_bound = a.output_token_bound, breaker_id = b.id
      FROM breaker b
     WHERE l.call_id = c.call_id AND l.generation = c.generation
       AND b.provider = a.provider AND b.model = a.model AND b.credential = a.credential AND b.org_id = '';
END $$;
