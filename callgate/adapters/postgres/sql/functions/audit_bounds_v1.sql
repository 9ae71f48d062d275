-- callgate_audit_bounds_v1: what an audit has to look at, and how much of it there is; some look-ups by index.
--
-- Returns   budgets_until: the ids of budgets are below it; pages: of llm_call, as it is stored now; first_day and
--           until_day: the days in UTC that have sums, deltas or seals; gaps: days of before the sums were kept that are
--           not summed up yet; unprocessable: messages that name no call; attempts: those that are not posted, by status.
CREATE FUNCTION callgate_audit_bounds_v1()
RETURNS TABLE (
    at timestamptz, budgets_until bigint, pages bigint, first_day date, until_day date, gaps int, unprocessable int,
    attempts json)
LANGUAGE sql STABLE SET timezone = 'UTC' SET enable_seqscan = off AS $$
    SELECT now(), (SELECT coalesce(max(b.id), 0) + 1 FROM budget b),
           pg_relation_size('llm_call') / current_setting('block_size')::bigint,
           least((SELECT min(d.day) FROM day_sum d), (SELECT min(s.starts_at) FROM sum_seal s)::date,
                 (SELECT min(e.starts_at) FROM attempt_delta e)::date),
           greatest((SELECT max(d.day) FROM day_sum d), (SELECT max(s.starts_at) FROM sum_seal s)::date,
                    (SELECT max(e.starts_at) FROM attempt_delta e)::date) + 1,
           (SELECT count(*) FROM sum_gap)::int, (SELECT count(*) FROM unprocessable_message)::int,
           (SELECT coalesce(json_object_agg(o.status, o.n), '{}')
              FROM (SELECT a.status, count(*) AS n FROM ai_call_log a WHERE a.posted_nano_usd IS NULL GROUP BY 1) o)
$$;
