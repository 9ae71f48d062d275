-- callgate_whole_hold_v1: whether a settled attempt has posted its whole hold because no amount was known. Older
-- versions, which stored no anomalies, marked an unknown bill in no other way.
CREATE FUNCTION callgate_whole_hold_v1(a ai_call_log) RETURNS boolean
LANGUAGE sql IMMUTABLE AS $$
    SELECT a.posted_nano_usd = a.hold_nano_usd AND a.hold_nano_usd > 0
       AND (a.status = 'failed' AND a.input_tokens IS NULL OR coalesce(a.price_source, '') LIKE 'whole hold%')
$$;
