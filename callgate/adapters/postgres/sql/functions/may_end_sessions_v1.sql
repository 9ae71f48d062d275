-- callgate_may_end_sessions_v1: grant the owner of the ledger the role that it needs to end sessions of clients
-- (end_lock_hoarders_v1). Only the owner executes this.
--
-- Locks     nothing in the ledger.
-- Returns   null if the owner has the role. Otherwise the GRANT statement: a superuser, or a login that may grant
--           pg_signal_backend, must run it.
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
