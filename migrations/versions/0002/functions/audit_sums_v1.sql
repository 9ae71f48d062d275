-- callgate_audit_sums_v1: what attempts of some days have posted, by outcome, at one moment.
--
-- p_from, p_until  days in UTC. Deltas that are not in the sums yet count, if they are of these days.
-- Returns          broken_seals, in the row whose outcome is null: days that are wholly sealed, and whose sums are not
--                  those that were sealed.
CREATE FUNCTION callgate_audit_sums_v1(p_from date, p_until date)
RETURNS TABLE (outcome text, attempts bigint, posted_nano_usd bigint, broken_seals int)
LANGUAGE plpgsql STABLE SET timezone = 'UTC' SET enable_seqscan = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH totals AS MATERIALIZED (
        SELECT d.day, d.outcome, d.kind, sum(d.attempts) AS attempts, sum(d.posted_nano_usd) AS posted
          FROM day_sum d WHERE d.day >= p_from AND d.day < p_until GROUP BY d.day, d.outcome, d.kind
    ), seals AS (
        SELECT s.starts_at::date AS day, sum(s.attempts) AS attempts, sum(s.posted_nano_usd) AS posted
          FROM sum_seal s WHERE s.starts_at >= p_from AND s.starts_at < p_until GROUP BY 1 HAVING count(*) = 96
    ), days AS (
        SELECT t.day, sum(t.attempts) AS attempts, sum(t.posted) AS posted FROM totals t GROUP BY 1
    )
    SELECT x.outcome, sum(x.attempts)::bigint, sum(x.posted)::bigint, 0
      FROM (SELECT t.outcome, t.attempts, t.posted FROM totals t WHERE t.kind <> 'collapsed'
             UNION ALL
            SELECT e.outcome, e.attempts, e.posted_nano_usd FROM attempt_delta e
             WHERE e.kind <> 'collapsed' AND e.starts_at >= p_from AND e.starts_at < p_until) x
     GROUP BY x.outcome HAVING sum(x.attempts) <> 0
     UNION ALL
    SELECT NULL, 0::bigint, 0::bigint, count(*)::int
      FROM seals s LEFT JOIN days d USING (day)
     WHERE s.attempts <> coalesce(d.attempts, 0) OR s.posted <> coalesce(d.posted, 0);
END $$;
