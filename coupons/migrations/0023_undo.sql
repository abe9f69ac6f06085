-- An import can be undone (docs/decisions/0024): what it removed is kept for 7 days, and `first_id` and `added_by`
-- tell what it added from what it found.
ALTER TABLE import_job
    ADD COLUMN first_id bigint,
    DROP CONSTRAINT import_job_mode_check,
    ADD CONSTRAINT import_job_mode_check CHECK (mode IN ('add', 'replace', 'delete', 'undo')),
    DROP CONSTRAINT only_replace_removes,
    ADD CONSTRAINT only_replace_removes CHECK (to_remove IS NULL OR mode IN ('replace', 'undo'));
ALTER TABLE recipient ADD COLUMN added_by uuid;
CREATE TABLE import_removal (
    import_id uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    texts     text[] NOT NULL,
    lines     integer NOT NULL GENERATED ALWAYS AS (cardinality(texts)) STORED,
    PRIMARY KEY (import_id, number)
);
ALTER TABLE import_removal ALTER texts SET STORAGE EXTERNAL;
