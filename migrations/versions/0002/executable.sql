-- A function that was replaced has lost its settings. Each one that a role may execute runs with the rights of its
-- owner, as grants.sql of 0001 says.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid::regprocedure FROM pg_proc p
         WHERE p.pronamespace = '{schema}'::regnamespace AND p.proname LIKE 'callgate\_%' AND NOT p.prosecdef
           AND EXISTS (SELECT 1 FROM unnest(ARRAY['callgate_client', 'callgate_worker', 'callgate_dashboard',
                                                'callgate_operator', 'callgate_body_reader']) AS r(role)
                        WHERE has_function_privilege(r.role, p.oid, 'EXECUTE'))
    LOOP
        EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = {schema}, pg_temp'
                       ' SET client_min_messages = notice', f);
    END LOOP;
END $$;
