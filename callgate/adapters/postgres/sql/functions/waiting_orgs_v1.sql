-- callgate_waiting_orgs_v1: the organisations with calls that wait for a provider, or that were made due and are not
-- claimed yet. An organisation whose calls to that provider are all paused is left out.
--
-- Source    one look into the index for each organisation ("loose index scan"; Postgres wiki).
CREATE FUNCTION callgate_waiting_orgs_v1(p_breaker_id bigint) RETURNS SETOF text
LANGUAGE sql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    WITH RECURSIVE waiting (org_id) AS (
        (SELECT l.org_id FROM llm_call l WHERE l.breaker_id = p_breaker_id ORDER BY l.org_id LIMIT 1)
        UNION ALL
        SELECT (SELECT l.org_id FROM llm_call l WHERE l.breaker_id = p_breaker_id AND l.org_id > w.org_id
                 ORDER BY l.org_id LIMIT 1)
          FROM waiting w WHERE w.org_id IS NOT NULL
    )
    SELECT w.org_id FROM waiting w WHERE w.org_id IS NOT NULL
       AND NOT EXISTS (SELECT 1 FROM pause p JOIN breaker b ON b.id = p_breaker_id
                        WHERE p.call_type = '' AND p.org_id IN ('', w.org_id)
                          AND p.provider IN ('', b.provider) AND p.model IN ('', b.model))
$$;
