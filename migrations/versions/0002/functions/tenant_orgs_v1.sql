-- callgate_tenant_orgs_v1: the organisations for which the login of this session may act; null means any.
--
-- session_user is the login that authenticated. Neither SET ROLE nor SECURITY DEFINER changes it, and no setting is
-- read. Each login that neither owns the ledger nor is an operator's is a tenant, whatever rights it has. An operator's
-- login that is also a client's is a tenant.
CREATE FUNCTION callgate_tenant_orgs_v1() RETURNS text[]
LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN NOT (pg_has_role(session_user, current_user, 'USAGE')
                          OR pg_has_role(session_user, 'callgate_operator', 'USAGE')
                             AND NOT pg_has_role(session_user, 'callgate_client', 'USAGE'))
           THEN ARRAY(SELECT t.org_id FROM tenant_login t WHERE t.login = session_user) END
$$;
