-- callgate_own_key_v1: make a submission the owner of its idempotency key. The first submission that names a key owns
-- it.
--
-- The submission is stored with generation 0 until its call is known.
-- Locks     the key. Another submission with the same key waits until this transaction ends.
-- Returns   own: this submission owns the key. same_call: another submission owns it, for the same call. mismatch:
--           another submission owns it, for another call.
CREATE FUNCTION callgate_own_key_v1(p_submission_id uuid, p_org_id text, p_call_id uuid, p_key text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    owner_call_id uuid;
BEGIN
    INSERT INTO submission (submission_id, org_id, call_id, generation, outcome, idempotency_key)
    VALUES (p_submission_id, p_org_id, p_call_id, 0, 'created', p_key)
    ON CONFLICT (org_id, idempotency_key) DO NOTHING;
    IF FOUND THEN
        RETURN 'own';
    END IF;
    SELECT o.call_id INTO owner_call_id FROM submission o
     WHERE o.org_id = p_org_id AND o.idempotency_key = p_key;
    RETURN CASE WHEN owner_call_id IS NOT DISTINCT FROM p_call_id THEN 'same_call' ELSE 'mismatch' END;
END $$;
