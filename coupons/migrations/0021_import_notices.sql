-- An import shows how it read its file (`read_as`), and what it assumed, skipped, cut or left out (`notices`). An import
-- that replaces or deletes is first run dry, unless an operator has confirmed its numbers; `checked` has the digests of that
-- text. A failed import keeps its
-- upload until `expires_at`.
ALTER TABLE import_job
    ADD COLUMN read_as text,
    ADD COLUMN notices text[] NOT NULL DEFAULT '{}',
    ADD COLUMN confirmed boolean NOT NULL DEFAULT false,
    ADD COLUMN allow_empty boolean NOT NULL DEFAULT false,
    ADD COLUMN checked bytea[];
ALTER TABLE upload ADD COLUMN expires_at timestamptz;
