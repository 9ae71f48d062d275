-- callgate_schedule_delivery_v1: schedule the delivery of an ended call's links, p_in from now; do nothing if it has
-- none.
--
-- A statement that ends a call, or adds a link to an ended call, calls this. Delivery itself locks no call.
-- Locks     the call's row of undelivered_call. The caller holds the call.
-- Returns   whether there is any link to deliver.
CREATE FUNCTION callgate_schedule_delivery_v1(p_call_id uuid, p_generation int, p_org_id text, p_in interval) RETURNS boolean
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    INSERT INTO undelivered_call AS u (call_id, generation, org_id, deliver_at)
    SELECT p_call_id, p_generation, p_org_id, now() + p_in
     WHERE EXISTS (SELECT 1 FROM submission s
                    WHERE s.call_id = p_call_id AND s.generation = p_generation
                      AND s.link IS NOT NULL AND s.delivered_at IS NULL AND s.given_up_at IS NULL)
    ON CONFLICT (call_id, generation) DO UPDATE SET deliver_at = least(u.deliver_at, excluded.deliver_at);
    RETURN FOUND;
END $$;
