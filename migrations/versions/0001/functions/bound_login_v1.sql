-- callgate_bound_login_v1: limit how long the sessions of a client's login may stay idle, wait and run. Only the owner
-- of the ledger executes this.
--
-- Limits that the login already has, for this database or for all, stay. A session can override the limits, so they end
-- only forgotten transactions. Workers skip locked calls (lock_calls_v1), so a client that overrides them does not stop
-- workers.
-- Locks     nothing in the ledger. It alters the login.
-- Returns   null; or the statements, if the owner may not run them. Then a login that may alter p_login must run them.
CREATE FUNCTION callgate_bound_login_v1(p_login text) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    statements text;
BEGIN
    SELECT string_agg(format('ALTER ROLE %I IN DATABASE %I SET %s = %L', p_login, current_database(), k.name, k.value), '; '
                      ORDER BY k.name)
      INTO statements
      FROM (VALUES ('idle_in_transaction_session_timeout', '10s'), ('lock_timeout', '10s'), ('statement_timeout', '60s'),
                   ('transaction_timeout', '60s')) AS k(name, value)
     -- transaction_timeout: Postgres 17 and later.
     WHERE EXISTS (SELECT 1 FROM pg_settings g WHERE g.name = k.name)
       AND NOT EXISTS (
            SELECT 1 FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole
              LEFT JOIN pg_database d ON d.oid = s.setdatabase
             CROSS JOIN unnest(s.setconfig) AS c(line)
             WHERE r.rolname = p_login AND coalesce(d.datname, current_database()) = current_database()
               AND split_part(c.line, '=', 1) = k.name);
    IF statements IS NULL OR NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.rolname = p_login) THEN
        RETURN NULL;
    END IF;
    EXECUTE statements;
    RETURN NULL;
EXCEPTION WHEN insufficient_privilege THEN
    RETURN statements;
END $$;
