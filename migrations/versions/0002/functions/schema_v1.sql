-- callgate_schema_v1: say which schema this ledger has, and which processes can use it.
--
-- Each migration replaces this function in place: it is the one function whose answer must change.
-- Returns   revision: of the newest migration. serves_from: the oldest schema whose processes can use this ledger.
CREATE FUNCTION callgate_schema_v1() RETURNS TABLE (revision text, serves_from text)
LANGUAGE sql IMMUTABLE AS $$
    SELECT '0002', '0001'
$$;
