-- callgate_links_v1: take links that are due, oldest first. For ten seconds no other caller takes links of the same
-- calls.
--
-- p_call_ids  take the links of these calls, because the process that ended them delivers first. Null: take links of
--             all organisations in turn, by name, beginning after p_after. So an organisation with many links delays
--             the others by at most p_per_org links.
-- Locks       rows of undelivered_call: SKIP LOCKED. A call to which a link is just being added is skipped, and found
--             again later. No call is locked.
-- Refused     if a row cannot be updated, it is skipped and the next rows are taken.
-- Returns     at most p_limit links, p_per_org of an organisation, p_per_call of a call, and p_bytes_max bytes, but at
--             least one link.
CREATE FUNCTION callgate_links_v1(
    p_after text, p_call_ids uuid[], p_generations int[], p_per_call int, p_per_org int, p_limit int, p_bytes_max bigint
) RETURNS TABLE (submission_id uuid, call_id uuid, generation int, org_id text, state text, tries int, link text)
LANGUAGE plpgsql SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    hidden_for CONSTANT interval := interval '10 s';
    org text := p_after;
    u undelivered_call%ROWTYPE;
    of_org int := 0;
    of_call int;
    taken int := 0;
    bytes bigint := 0;
    refused uuid[] := '{}';     -- calls whose rows could not be updated
    again boolean := false;     -- take the same organisation again: other calls may be behind its refused ones
BEGIN
    WHILE taken < p_limit AND bytes < p_bytes_max LOOP
        IF p_call_ids IS NULL AND NOT again THEN
            SELECT x.org_id INTO org FROM undelivered_call x WHERE x.org_id > org ORDER BY x.org_id LIMIT 1;
            EXIT WHEN NOT FOUND;
            of_org := 0;
        END IF;
        again := false;
        FOR u IN
            SELECT * FROM (
                SELECT x.* FROM undelivered_call x
                 WHERE p_call_ids IS NULL AND x.org_id = org AND x.deliver_at <= now() AND x.call_id <> ALL (refused)
                 ORDER BY x.deliver_at LIMIT p_per_org FOR UPDATE SKIP LOCKED) in_turn
            UNION ALL
            SELECT * FROM (
                SELECT x.* FROM unnest(p_call_ids, p_generations) AS k(call_id, generation)
                  JOIN undelivered_call x ON x.call_id = k.call_id AND x.generation = k.generation
                   FOR UPDATE OF x SKIP LOCKED) named
        LOOP
            EXIT WHEN taken >= p_limit OR bytes >= p_bytes_max OR of_org >= p_per_org;
            BEGIN
                UPDATE undelivered_call x SET deliver_at = now() + hidden_for
                 WHERE x.call_id = u.call_id AND x.generation = u.generation;
            EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
                RAISE WARNING 'links of call %.% cannot be taken: %', u.call_id, u.generation, SQLERRM;
                refused := refused || u.call_id;
                again := p_call_ids IS NULL;
                CONTINUE;
            END;
            of_call := 0;
            FOR submission_id, call_id, generation, org_id, state, tries, link IN
                SELECT s.submission_id, u.call_id, u.generation, u.org_id,
                       (SELECT l.state FROM llm_call l WHERE l.call_id = u.call_id AND l.generation = u.generation),
                       s.tries, s.link
                  FROM submission s
                 WHERE s.call_id = u.call_id AND s.generation = u.generation
                   AND s.link IS NOT NULL AND s.delivered_at IS NULL AND s.given_up_at IS NULL AND s.try_at <= now()
                 ORDER BY s.try_at LIMIT least(p_per_call, p_per_org - of_org, p_limit - taken)
            LOOP
                bytes := bytes + octet_length(link);
                EXIT WHEN taken > 0 AND bytes > p_bytes_max;
                of_call := of_call + 1;
                of_org := of_org + 1;
                taken := taken + 1;
                RETURN NEXT;
            END LOOP;
            IF of_call = 0 THEN
                PERFORM callgate_reschedule_delivery_v1(u.call_id, u.generation);
            END IF;
        END LOOP;
        EXIT WHEN p_call_ids IS NOT NULL;
    END LOOP;
END $$;
