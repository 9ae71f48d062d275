-- callgate_link_failures_v1: list the links of one call that could not be delivered so far. Those that were given up
-- come first.
--
-- The login must be allowed to read the call's organisation; otherwise no row is returned.
CREATE FUNCTION callgate_link_failures_v1(p_call_id uuid, p_generation int, p_limit int)
RETURNS TABLE (submission_id uuid, tries int, failure text, try_at timestamptz, given_up_at timestamptz)
LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    orgs CONSTANT text[] := callgate_readable_orgs_v1(NULL);
BEGIN
    RETURN QUERY
    SELECT s.submission_id, s.tries, s.failure, CASE WHEN s.given_up_at IS NULL THEN s.try_at END, s.given_up_at
      FROM submission s
     WHERE s.call_id = p_call_id AND s.generation = p_generation AND s.failure IS NOT NULL
       AND (orgs IS NULL OR s.org_id = ANY (orgs))
     ORDER BY s.given_up_at, s.try_at LIMIT least(p_limit, 1000);
END $$;
