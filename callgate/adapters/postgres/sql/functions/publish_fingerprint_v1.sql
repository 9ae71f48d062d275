-- callgate_publish_fingerprint_v1: keep what a worker process is made of, with its lease.
--
-- p_schema_revision        the newest schema that the process knows.
-- p_settings, p_catalogue  digests.
-- p_sections               digests of the catalogue's sections, by name.
-- Locks     the process's row of worker_lease.
CREATE FUNCTION callgate_publish_fingerprint_v1(
    p_worker_id text, p_version text, p_schema_revision text, p_settings text, p_catalogue text, p_sections jsonb
) RETURNS void
LANGUAGE sql AS $$
    UPDATE worker_lease w
       SET version = p_version, schema_revision = p_schema_revision, settings_digest = p_settings,
           catalogue_digest = p_catalogue, catalogue_sections = p_sections
     WHERE w.worker_id = p_worker_id
$$;
