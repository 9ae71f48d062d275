-- What worker processes are made of.

ALTER TABLE worker_lease ADD COLUMN version TEXT, ADD COLUMN schema_revision TEXT, ADD COLUMN settings_digest TEXT,
    ADD COLUMN catalogue_digest TEXT, ADD COLUMN catalogue_sections JSONB,
    ADD CONSTRAINT ck_worker_lease_catalogue_sections_is_bounded CHECK (octet_length(catalogue_sections::text) <= 4000),
    ADD CONSTRAINT ck_worker_lease_version_is_bounded CHECK (char_length(version) <= 128),
    ADD CONSTRAINT ck_worker_lease_schema_revision_is_bounded CHECK (char_length(schema_revision) <= 128),
    ADD CONSTRAINT ck_worker_lease_settings_digest_is_bounded CHECK (char_length(settings_digest) <= 128),
    ADD CONSTRAINT ck_worker_lease_catalogue_digest_is_bounded CHECK (char_length(catalogue_digest) <= 128);
COMMENT ON COLUMN worker_lease.version IS 'of callgate; null: it has published no fingerprint';
COMMENT ON COLUMN worker_lease.schema_revision IS 'the newest schema that it knows';
COMMENT ON COLUMN worker_lease.settings_digest IS 'of the settings that all workers should share';
COMMENT ON COLUMN worker_lease.catalogue_digest IS 'of its catalogue';
COMMENT ON COLUMN worker_lease.catalogue_sections IS 'digests of the sections of its catalogue, by name';
