-- callgate_lock_calls_v1: lock the calls that no other session holds until the transaction ends: SKIP LOCKED.
--
-- A client's login can keep its own calls locked for a long time, with an open transaction around a submission. So a
-- statement about calls of many organisations must not wait for one call.
-- Locks     calls, in any order. A session that never waits for a call cannot deadlock over calls.
-- Returns   the call ids, in the order given. An id is null if another session holds the call, or if there is no such
--           call. The caller leaves those calls alone.
CREATE FUNCTION callgate_lock_calls_v1(p_call_ids uuid[], p_generations int[]) RETURNS uuid[]
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    locked_ids uuid[];
BEGIN
    WITH held AS MATERIALIZED (
        SELECT l.call_id, l.generation FROM llm_call l
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations))
           FOR UPDATE SKIP LOCKED
    ), keys AS MATERIALIZED (
        SELECT jsonb_object_agg(h.call_id || '.' || h.generation, true) AS held FROM held h
    )
    SELECT array_agg(CASE WHEN k.held ? (u.call_id || '.' || u.generation) THEN u.call_id END ORDER BY u.ord) INTO locked_ids
      FROM unnest(p_call_ids, p_generations) WITH ORDINALITY AS u(call_id, generation, ord) CROSS JOIN keys k;
    RETURN coalesce(locked_ids, '{}');
END $$;
