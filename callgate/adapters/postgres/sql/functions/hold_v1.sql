-- callgate_hold_v1: lock those of the calls that nobody else holds, to the end of the transaction; SKIP LOCKED.
--
-- A client's login may keep the rows of its own calls locked for as long as it likes, by an open transaction around a
-- submission. So no statement about the calls of many may wait for one of them.
-- Locks     calls, in no order that matters: who waits for none can be in no deadlock over them.
-- Returns   the call ids, in the order given; null where the call is somebody else's at this moment, or is not there. The caller
--           leaves those alone.
CREATE FUNCTION callgate_hold_v1(p_call_ids uuid[], p_generations int[]) RETURNS uuid[]
LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    held_ids uuid[];
BEGIN
    WITH held AS MATERIALIZED (
        SELECT l.call_id, l.generation FROM llm_call l
         WHERE (l.call_id, l.generation) IN (SELECT * FROM unnest(p_call_ids, p_generations))
           FOR UPDATE SKIP LOCKED
    ), keys AS MATERIALIZED (
        SELECT jsonb_object_agg(h.call_id || '.' || h.generation, true) AS held FROM held h
    )
    SELECT array_agg(CASE WHEN k.held ? (u.call_id || '.' || u.generation) THEN u.call_id END ORDER BY u.ord) INTO held_ids
      FROM unnest(p_call_ids, p_generations) WITH ORDINALITY AS u(call_id, generation, ord) CROSS JOIN keys k;
    RETURN coalesce(held_ids, '{}');
END $$;
