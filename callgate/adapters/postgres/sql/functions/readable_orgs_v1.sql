-- callgate_readable_orgs_v1: the organisations that this login may read, or what of p_org_id it may; null means all.
--
-- Workers run calls of all organisations, and the dashboard shows all, but no bodies: a client that is in its role as well
-- may be told by functions what a client may, for those bring bodies. Every function that reads for a client asks this: no
-- login of a role but the dashboard's reads a table by itself (see docs/adr/0009).
CREATE FUNCTION callgate_readable_orgs_v1(p_org_id text) RETURNS text[]
LANGUAGE plpgsql STABLE AS $$
DECLARE
    own_orgs text[];
BEGIN
    IF NOT (pg_has_role(session_user, 'callgate_worker', 'USAGE')
            OR pg_has_role(session_user, 'callgate_dashboard', 'USAGE')
               AND NOT pg_has_role(session_user, 'callgate_client', 'USAGE')) THEN
        own_orgs := callgate_tenant_orgs_v1();
    END IF;
    IF p_org_id IS NULL THEN
        RETURN own_orgs;
    ELSIF own_orgs IS NULL OR p_org_id = ANY (own_orgs) THEN
        RETURN ARRAY[p_org_id];
    END IF;
    RETURN '{}';
END $$;
