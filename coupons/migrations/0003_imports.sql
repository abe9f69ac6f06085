-- Imports into lists and into groups by one engine, which can be cancelled and knows by its digest what it has read;
-- lists that can be deleted although codes of theirs were sent; sendouts that resume by themselves.
-- Stop the workers first: an old one would not keep the digest, and would note rejected lines one by one.

ALTER TABLE coupon_list
    DROP CONSTRAINT coupon_list_name_key,
    ADD COLUMN removed bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),
    ADD COLUMN deleted_at timestamptz,
    ADD CONSTRAINT deleted_is_empty CHECK (deleted_at IS NULL OR (archived_at IS NOT NULL AND total = 0));
CREATE UNIQUE INDEX coupon_list_name ON coupon_list (name) WHERE deleted_at IS NULL;

CREATE TABLE spent_code (hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32));
CREATE TABLE spent_code_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (octet_length(key) = 32)
);
INSERT INTO spent_code_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
CREATE FUNCTION spent_hash(key bytea, code text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sha256(key || sha256(key || convert_to(code, 'UTF8')));

ALTER TABLE recipient ADD COLUMN import_id uuid;

ALTER TABLE import_job
    ALTER COLUMN list_id DROP NOT NULL,
    ADD COLUMN group_id bigint REFERENCES recipient_group ON DELETE CASCADE,
    ADD COLUMN left_promised bigint NOT NULL DEFAULT 0 CHECK (left_promised >= 0),
    ADD COLUMN left_bound bigint NOT NULL DEFAULT 0 CHECK (left_bound >= 0),
    ADD COLUMN position bigint NOT NULL DEFAULT 0 CHECK (position >= 0),
    ADD COLUMN digest bytea CHECK (octet_length(digest) = 32),
    ADD COLUMN interruptions integer NOT NULL DEFAULT 0,
    ADD COLUMN due_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN claimed_at timestamptz,
    ADD COLUMN claimed_bytes bigint NOT NULL DEFAULT 0,
    ADD COLUMN claimed_lines bigint NOT NULL DEFAULT 0,
    ADD COLUMN progressed_at timestamptz,
    ADD COLUMN columns text[],
    DROP CONSTRAINT import_job_state_check,
    DROP CONSTRAINT import_job_check,
    ADD CONSTRAINT import_job_state_check CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
    ADD CONSTRAINT ended_is_over CHECK ((finished_at IS NOT NULL) = (state IN ('finished', 'failed', 'cancelled'))),
    ADD CONSTRAINT list_or_group CHECK ((list_id IS NULL) <> (group_id IS NULL)),
    ADD CONSTRAINT what_was_read_is_known CHECK (position = 0 OR digest IS NOT NULL);
UPDATE import_job SET state = 'failed', reason = 'begun by an older version: import the file again', finished_at = now(),
    lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE state = 'running';
CREATE INDEX import_job_list ON import_job (list_id, created_at);
CREATE INDEX import_job_group ON import_job (group_id, created_at);

CREATE TABLE known_chunk (
    list_id   bigint NOT NULL REFERENCES coupon_list ON DELETE CASCADE,
    digest    bytea NOT NULL CHECK (octet_length(digest) = 32),
    import_id uuid NOT NULL,
    removed   bigint NOT NULL,
    PRIMARY KEY (list_id, digest)
);

CREATE TABLE import_event (
    import_id uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    text      text NOT NULL,
    PRIMARY KEY (import_id, number)
);

ALTER TABLE import_rejection RENAME TO rejection_by_line;
ALTER TABLE rejection_by_line RENAME CONSTRAINT import_rejection_pkey TO rejection_by_line_pkey;
ALTER TABLE rejection_by_line RENAME CONSTRAINT import_rejection_import_id_fkey TO rejection_by_line_import_id_fkey;
CREATE TABLE import_rejection (
    import_id  uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    first_line bigint NOT NULL,
    lines      bigint[] NOT NULL,
    texts      text[] NOT NULL,
    reasons    text[] NOT NULL,
    PRIMARY KEY (import_id, first_line),
    CONSTRAINT each_line_has_a_reason
        CHECK (first_line = ANY (lines) AND cardinality(lines) = ALL (ARRAY[cardinality(texts), cardinality(reasons)]))
);
ALTER TABLE import_rejection
    ALTER lines SET STORAGE EXTERNAL, ALTER texts SET STORAGE EXTERNAL, ALTER reasons SET STORAGE EXTERNAL;
INSERT INTO import_rejection (import_id, first_line, lines, texts, reasons)
SELECT import_id, min(line), array_agg(line ORDER BY line), array_agg(value ORDER BY line),
       array_agg(CASE reason WHEN 'held' THEN 'bound' ELSE reason END ORDER BY line)
FROM (SELECT *, row_number() OVER (PARTITION BY import_id ORDER BY line) / 10000 AS part FROM rejection_by_line) parts
GROUP BY import_id, part ORDER BY import_id, part;
DROP TABLE rejection_by_line;

ALTER TABLE sendout ADD COLUMN resume_when_covered boolean NOT NULL DEFAULT false;
