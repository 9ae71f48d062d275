-- callgate_has_free_call_v1: whether an organisation has a call that can be claimed: one of its first ten calls that
-- wait for a provider, and are not paused, is locked by no session.
--
-- Locks     that call: SKIP LOCKED.
CREATE FUNCTION callgate_has_free_call_v1(p_breaker_id bigint, p_org_id text) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    paused_types CONSTANT text[] := callgate_paused_types_v1(p_breaker_id, p_org_id);
BEGIN
    PERFORM 1 FROM llm_call l
      WHERE (l.call_id, l.generation) IN (
            SELECT x.call_id, x.generation FROM llm_call x
             WHERE x.breaker_id = p_breaker_id AND x.org_id = p_org_id AND x.call_type <> ALL (paused_types)
             ORDER BY x.rank_at LIMIT 10)
      LIMIT 1 FOR UPDATE SKIP LOCKED;
    RETURN FOUND;
END $$;
