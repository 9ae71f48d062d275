-- callgate_sum_orgs_v1: every organisation that has calls, rows of the log, sums or deltas.
--
-- It steps through the indexes from one organisation to the next, and reads one entry of each.
CREATE FUNCTION callgate_sum_orgs_v1() RETURNS text[]
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE orgs AS (
            SELECT '' AS org_id
            UNION ALL
            SELECT (SELECT min(x.org_id) FROM (VALUES
                        ((SELECT c.org_id FROM llm_call c WHERE c.generation >= 0 AND c.org_id > o.org_id
                           ORDER BY c.org_id LIMIT 1)),
                        ((SELECT a.org_id FROM ai_call_log a WHERE a.org_id > o.org_id ORDER BY a.org_id LIMIT 1)),
                        ((SELECT d.org_id FROM day_sum d WHERE d.org_id > o.org_id ORDER BY d.org_id LIMIT 1)))
                               x(org_id))
              FROM orgs o WHERE o.org_id IS NOT NULL
        )
        SELECT o.org_id FROM orgs o WHERE o.org_id <> ''
        UNION SELECT d.org_id FROM attempt_delta d);
END $$;
