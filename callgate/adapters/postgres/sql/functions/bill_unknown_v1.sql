-- callgate_bill_unknown_v1: does an attempt post its whole hold because nobody knows what was billed?
--
-- Rules     callgate/domain/unknown.py. The condition of ix_ai_call_log_unknown is the same, word for word: inlined, the two meet.
CREATE FUNCTION callgate_bill_unknown_v1(p_status text, p_anomalies text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_status = 'unknown' OR p_anomalies && ARRAY['price_unknown', 'usage_implausible', 'usage_missing', 'usage_zero']
$$;
