-- callgate_readable_orgs_v1: the organisations that this login may read, or which of them is p_org_id; null means all.
--
-- A worker reads all organisations. The dashboard reads all, but no bodies. Functions return bodies: so a login that is
-- both client and dashboard gets from them only what a client may read. Every function that reads for a client calls
-- this. No role but the dashboard reads a table directly (docs/adr/0009).
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
