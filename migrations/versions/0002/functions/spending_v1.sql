-- callgate_spending_v1: what attempts that succeeded recently held and cost, by organisation, call type, provider and model.
--
-- Only the newest attempts of each organisation are read, by index, so that a long log costs no more than a short one.
-- Attempts that held nothing are left out: they were free.
-- p_org_ids       at most 100. Organisations that the login may not read are left out.
-- p_days          only attempts that began so lately.
-- p_attempts_max  how many attempts of each organisation are read at most, of whatever result.
CREATE FUNCTION callgate_spending_v1(p_org_ids text[], p_days int, p_attempts_max int)
RETURNS TABLE (
    org_id text, call_type text, provider text, model text, attempts int, output_tokens bigint,
    hold_nano_usd numeric, posted_nano_usd numeric)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
    since CONSTANT timestamptz := now() - make_interval(days => p_days);
    -- A day more, in case the clock was set back between two attempts. It leaves out whole months of the log.
    first_id CONSTANT uuid := callgate_uuid_floor_v1(since - interval '1 day');
    readable CONSTANT text[] := (SELECT array_agg(DISTINCT o.org_id) FROM unnest(p_org_ids) AS o(org_id)
                                  WHERE orgs IS NULL OR o.org_id = ANY (orgs));
BEGIN
    IF cardinality(p_org_ids) > 100 THEN
        RAISE EXCEPTION 'at most 100 organisations at a time are summed up' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN QUERY
    SELECT a.org_id, a.call_type, a.provider, a.model, count(*)::int, coalesce(sum(a.output_tokens), 0)::bigint,
           sum(a.hold_nano_usd), sum(a.posted_nano_usd)
      FROM unnest(readable) AS o(org_id)
     CROSS JOIN LATERAL (
           SELECT x.org_id, x.call_type, x.provider, x.model, x.status, x.output_tokens, x.hold_nano_usd,
                  x.posted_nano_usd
             FROM ai_call_log x
            WHERE x.org_id = o.org_id AND x.started_at >= since AND x.attempt_id >= first_id
            ORDER BY x.started_at DESC LIMIT least(p_attempts_max, 10000)
      ) a
     WHERE a.status = 'succeeded' AND a.hold_nano_usd > 0
     GROUP BY a.org_id, a.call_type, a.provider, a.model
     ORDER BY 1, 2, 3, 4;
END $$;
