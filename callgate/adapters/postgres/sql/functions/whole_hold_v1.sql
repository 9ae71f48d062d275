-- callgate_whole_hold_v1: does a settled attempt post its whole hold for want of an amount? Versions without anomalies knew no
-- other way to say that its bill is unknown.
CREATE FUNCTION callgate_whole_hold_v1(a ai_call_log) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT a.posted_nano_usd = a.hold_nano_usd AND a.hold_nano_usd > 0
       AND (a.status = 'failed' AND a.input_tokens IS NULL OR coalesce(a.price_source, '') LIKE 'whole hold%')
$$;
