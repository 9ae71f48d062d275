-- callgate_bill_unknown_v1: whether an attempt posts its whole hold because the bill is unknown.
--
-- Rules     callgate/domain/unknown.py. The condition of ix_ai_call_log_unknown has the same words. The planner inlines
--           this function, and so finds that index.
CREATE FUNCTION callgate_bill_unknown_v1(p_status text, p_anomalies text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_status = 'unknown' OR p_anomalies && ARRAY['price_unknown', 'usage_implausible', 'usage_missing', 'usage_zero']
$$;
