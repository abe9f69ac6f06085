-- A worker publishes the progress of an import every second, between the commits of its chunks.
ALTER TABLE import_job
    ADD COLUMN seen_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN done_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN to_remove bigint CHECK (to_remove >= 0),
    ADD CONSTRAINT only_replace_removes CHECK (to_remove IS NULL OR mode = 'replace');
