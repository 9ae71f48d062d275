-- callgate_call_id_v1: the call id of an organisation and an input hash, as callgate/domain/identity.py computes it.
--
-- A UUIDv8 (RFC 9562, 5.8) from SHA-256 over the canonical JSON of [org_id, hash in hex].
CREATE FUNCTION callgate_call_id_v1(p_org_id text, p_input_hash bytea) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE STRICT AS $$
DECLARE
    digest text := encode(sha256(convert_to(
        '[' || to_json(p_org_id) || ',"' || encode(p_input_hash, 'hex') || '"]', 'UTF8')), 'hex');
BEGIN
    RETURN (substr(digest, 1, 12) || '8' || substr(digest, 14, 3)
            || substr('89ab89ab89ab89ab', strpos('0123456789abcdef', substr(digest, 17, 1)), 1)
            || substr(digest, 18, 15))::uuid;
END $$;
