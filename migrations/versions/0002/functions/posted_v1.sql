-- callgate_posted_v1: sum up the rows of some organisations, as attempt_delta would have them: posted attempts that began
-- in a time, and submissions that were collapsed in it. Their id is null.
--
-- note_posting_v1 and compare_sums_v1 compute the same for one row. Each organisation is looked up by itself, by index.
-- p_with_savings  see collapsed_v1.
CREATE FUNCTION callgate_posted_v1(
    p_orgs text[], p_from timestamptz, p_until timestamptz, p_with_savings boolean)
RETURNS SETOF attempt_delta
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_sort = off
SET plan_cache_mode = force_custom_plan AS $$
DECLARE
    -- A day more, in case the clock was set back. It leaves out whole months of the log.
    first_id CONSTANT uuid := callgate_uuid_floor_v1(p_from - interval '1 day');
BEGIN
    RETURN QUERY
    SELECT NULL::bigint, callgate_quarter_v1(a.started_at), a.org_id, NULL::text, a.call_type, a.provider, a.model,
           a.service_tier, a.kind, a.status, a.budget_ids, count(*), count(*) FILTER (WHERE a.attempt = 1),
           sum(a.posted_nano_usd)::bigint, count(*) FILTER (WHERE a.is_unknown),
           coalesce(sum(a.posted_nano_usd) FILTER (WHERE a.is_unknown), 0)::bigint,
           count(*) FILTER (WHERE a.posted_nano_usd > 0 AND a.input_tokens IS NULL),
           coalesce(sum(a.input_tokens), 0)::bigint, coalesce(sum(a.cached_input_tokens), 0)::bigint,
           coalesce(sum(a.cache_write_tokens), 0)::bigint, coalesce(sum(a.cache_write_1h_tokens), 0)::bigint,
           coalesce(sum(a.output_tokens), 0)::bigint, coalesce(sum(a.reasoning_tokens), 0)::bigint,
           coalesce(sum(a.latency_ms), 0)::bigint, count(a.latency_ms), 0::bigint, 0::bigint
      FROM unnest(p_orgs) AS o(org_id)
     CROSS JOIN LATERAL (
           SELECT x.*, callgate_bill_unknown_v1(x.status, x.anomalies) AND x.settled_by_hand_at IS NULL AS is_unknown
             FROM ai_call_log x
            WHERE x.org_id = o.org_id AND x.started_at >= p_from AND x.started_at < p_until
              AND x.attempt_id >= first_id AND x.posted_nano_usd IS NOT NULL
           OFFSET 0
      ) a
     GROUP BY 2, a.org_id, a.call_type, a.provider, a.model, a.service_tier, a.kind, a.status, a.budget_ids;
    RETURN QUERY SELECT * FROM callgate_collapsed_v1(p_orgs, p_from, p_until, p_with_savings);
END $$;
