-- callgate_is_held_back_v1: whether a new call would be refused, because it is paused, or calls of its kind wait for their
-- provider or for a place. Then it asks for no slot: `OrgWork` in callgate/domain/slots.py.
--
-- Its kind is its organisation, call type, provider and model. This is a hint: reserve_v2 decides.
CREATE FUNCTION callgate_is_held_back_v1(p_org_id text, p_call_type text, p_provider text, p_model text) RETURNS boolean
LANGUAGE plpgsql STABLE SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN callgate_pause_of_v1(p_org_id, p_call_type, p_provider, p_model) IS NOT NULL
        -- The orders name the index, also in a plan that was made when nothing waited.
        OR (SELECT true FROM llm_call l
             WHERE l.is_in_line AND (l.state = 'queued' OR l.wait_reason = 'concurrency_limited')
               AND l.org_id = p_org_id AND hashtext(l.call_type) = hashtext(p_call_type) AND l.call_type = p_call_type
             ORDER BY l.provider, l.model, l.rank_at LIMIT 1) IS NOT NULL
        OR EXISTS (
            SELECT 1 FROM breaker b
             CROSS JOIN LATERAL (
                SELECT 1 FROM llm_call l WHERE l.breaker_id = b.id AND l.org_id = p_org_id ORDER BY l.rank_at LIMIT 1) w
             WHERE b.provider = p_provider AND b.model = p_model AND b.credential IN ('', p_org_id) AND b.org_id = '');
END $$;
