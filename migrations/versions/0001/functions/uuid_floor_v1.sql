-- callgate_uuid_floor_v1: the smallest UUIDv7 of a moment: 48 bits of Unix milliseconds, then zeros (RFC 9562, 5.7).
--
-- It bounds attempt ids by time, so that a look-up need not visit each partition of ai_call_log. No attempt is older
-- than its call. Callers subtract a day, in case the database's clock was set back in between.
CREATE FUNCTION callgate_uuid_floor_v1(p_at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(floor(extract(epoch FROM p_at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
