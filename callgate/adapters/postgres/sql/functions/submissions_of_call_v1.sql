-- callgate_submissions_of_call_v1: who asked for a call, the first p_limit (1000 at most), and how many there are.
--
-- The login must be allowed to read the call's organisation; otherwise no row is returned. At most ten thousand are
-- counted.
-- Locks    none.
-- Returns  has_link: somebody is to be told when the call ends. The counts, in each row, are of all submissions:
--          collapsed: those that made no call of their own; saving: those of them that an answer answers;
--          links, told and lost: of links; lost ones were given up.
CREATE FUNCTION callgate_submissions_of_call_v1(p_call_id uuid, p_generation int, p_limit int) RETURNS TABLE (
    submission_id uuid, outcome text, created_at timestamptz, idempotency_key text, has_link boolean,
    delivered_at timestamptz, tries int, failure text, try_at timestamptz, given_up_at timestamptz,
    total int, collapsed int, saving int, links int, told int, lost int)
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
BEGIN
    RETURN QUERY
    WITH s AS MATERIALIZED (
        SELECT x.submission_id, x.outcome, x.created_at, x.idempotency_key,
               x.link IS NOT NULL OR x.delivered_at IS NOT NULL OR x.given_up_at IS NOT NULL AS has_link,
               x.delivered_at, x.tries, x.failure,
               CASE WHEN x.given_up_at IS NULL AND x.failure IS NOT NULL THEN x.try_at END AS try_at, x.given_up_at
          FROM submission x
         WHERE x.call_id = p_call_id AND x.generation = p_generation AND (orgs IS NULL OR x.org_id = ANY (orgs))
         LIMIT 10000)
    SELECT s.*, t.* FROM s CROSS JOIN (
        SELECT count(*)::int, count(*) FILTER (WHERE s.outcome IN ('joined', 'replayed', 'failed'))::int,
               count(*) FILTER (WHERE s.outcome IN ('joined', 'replayed'))::int,
               count(*) FILTER (WHERE s.has_link)::int, count(s.delivered_at)::int, count(s.given_up_at)::int
          FROM s) t
     ORDER BY s.created_at, s.outcome <> 'created', s.submission_id LIMIT least(p_limit, 1000);
END $$;
