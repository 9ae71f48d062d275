-- callgate_readable_orgs_v1: the organisations that this login may read; if p_org_id is given, only that one of them.
-- Null means all.
--
-- A worker reads all organisations. The dashboard reads all too, but no bodies. Functions return bodies, so they give a
-- login that is both client and dashboard only what a client may read. Each function that reads for a client calls this
-- one. Only the dashboard's role reads tables directly (docs/adr/0009).
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
