-- callgate_grant_tenant_v1: let a login act for an organisation. Only the owner of the ledger executes this.
--
-- A login that sees all rows cannot be restricted to one organisation, so it is refused.
-- Locks     no existing row. It adds a row to tenant_login, if there is none.
CREATE FUNCTION callgate_grant_tenant_v1(p_login text, p_org_id text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_has_role(p_login, 'callgate_client', 'USAGE') THEN
        RAISE EXCEPTION 'login % is no client: GRANT callgate_client TO %', p_login, quote_ident(p_login)
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = p_login AND (r.rolsuper OR r.rolbypassrls))
       OR pg_has_role(p_login, current_user, 'MEMBER') OR pg_has_role(p_login, 'callgate_worker', 'MEMBER')
       OR pg_has_role(p_login, 'callgate_dashboard', 'MEMBER') THEN
        RAISE EXCEPTION 'login % sees every organisation: take its other rights first', p_login
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    INSERT INTO tenant_login (login, org_id) VALUES (p_login, p_org_id) ON CONFLICT DO NOTHING;
END $$;
