-- callgate_may_end_sessions_v1: let the owner of the ledger end sessions of clients (end_lock_hoarders_v1). For the owner only.
--
-- Returns   the statement, if who asks may not run it: a superuser should, or somebody who may grant that role.
CREATE FUNCTION callgate_may_end_sessions_v1() RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    owner_name text;
    statement text;
BEGIN
    SELECT pg_get_userbyid(p.proowner) INTO STRICT owner_name FROM pg_proc p
     WHERE p.pronamespace = current_schema()::regnamespace AND p.proname = 'callgate_end_lock_hoarders_v1';
    IF pg_has_role(owner_name, 'pg_signal_backend', 'USAGE') THEN
        RETURN NULL;
    END IF;
    statement := format('GRANT pg_signal_backend TO %I', owner_name);
    EXECUTE statement;
    RETURN NULL;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN statement;
END $$;
