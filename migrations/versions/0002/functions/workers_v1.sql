-- callgate_workers_v1: list the worker processes whose lease has not expired, and what they are made of.
--
-- Returns   at most 1,000. version, schema_revision, settings and catalogue are null if the process has published none.
--           sections: digests of the catalogue's sections, by name.
CREATE FUNCTION callgate_workers_v1() RETURNS TABLE (
    worker_id text, began_at timestamptz, version text, schema_revision text, settings text, catalogue text,
    sections jsonb)
LANGUAGE sql STABLE AS $$
    SELECT w.worker_id, w.began_at, w.version, w.schema_revision, w.settings_digest, w.catalogue_digest,
           w.catalogue_sections
      FROM worker_lease w WHERE w.expires_at > now() ORDER BY w.worker_id LIMIT 1000
$$;
