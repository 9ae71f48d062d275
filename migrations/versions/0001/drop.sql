-- Drop what 0001 created, but for the roles. A role is dropped only if no other database and no login needs it.

DROP VIEW ai_call_log_sums, dead_letter;
DROP TRIGGER append_only ON operator_action;

DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_proc p
         WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname LIKE 'callgate\_%'
    LOOP
        EXECUTE format('DROP FUNCTION %s', f);
    END LOOP;
END $$;

DROP TABLE
    llm_call,
    submission,
    undelivered_call,
    ai_call_log,
    ai_call_log_archive,
    budget,
    breaker,
    operator_action,
    unprocessable_message,
    worker_lease,
    tenant_login;
ALTER TABLE callgate_version DISABLE ROW LEVEL SECURITY;
REVOKE USAGE ON SCHEMA {schema} FROM callgate_client, callgate_worker, callgate_dashboard;
