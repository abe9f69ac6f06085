-- The database of the Coupon Manager: each table, state, constraint and index with its reason.
-- `coupons migrate` builds the database from coupons/migrations/. A test checks that the result equals this file.
--
-- A LIST holds single-use CODES. A MESSAGE is the template that a marketer wrote. A SENDOUT mails a message to a GROUP
-- of RECIPIENTS. A DELIVERY is one recipient's mail in a sendout. A BATCH is about 1,000 deliveries of one sendout,
-- which one worker claims under a LEASE.
--
-- A lease is three columns: the owner, the time when it ends by the clock of this database, and a token that is new for
-- each owner. Every write of the owner compares the token. If it has changed, the lease is lost and the worker stops.
--
-- Locks are always taken in this order: delivery_batch, sendout, coupon_list (by id), sendout_list (by list).
-- Rows of coupon are locked with SKIP LOCKED by the owner of their delivery's batch. An import that replaces available
-- codes waits for their rows, but then holds no lock that a batch waits for. Imports insert codes in the order of the
-- index coupon_code, so that imports of the same codes into several lists wait for each other in one order.

-- Every command that was received and could be parsed. The publisher chooses the id. A second command with the same id
-- changes nothing.
CREATE TABLE command (
    id          uuid PRIMARY KEY,
    type        text NOT NULL CHECK (type IN ('import', 'sendout', 'resume')),
    digest      bytea NOT NULL,  -- sha256 of the content: the same id with other content is rejected
    rejection_reason text,       -- why the command was rejected; a repeated command is rejected with the same reason
    received_at timestamptz NOT NULL DEFAULT now()
);

-- The counters make a reservation equally fast for ten recipients and for ten million. Each code is counted once.
-- `reserved`, `assigned` and `sent` are columns of sendout_list, summed over all sendouts of the list:
--     total = available + reserved + assigned + sent
CREATE TABLE coupon_list (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text NOT NULL
                     CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    description      text NOT NULL DEFAULT '' CHECK (char_length(description) <= 200),
    shortage         text NOT NULL DEFAULT 'pause' CHECK (shortage IN ('pause', 'text')),
    alternative_text text NOT NULL DEFAULT '' CHECK (char_length(alternative_text) <= 500),
    preview_text     text NOT NULL CHECK (char_length(preview_text) BETWEEN 1 AND 200),
    total            bigint NOT NULL DEFAULT 0 CHECK (total >= 0),
    available        bigint NOT NULL DEFAULT 0 CHECK (available BETWEEN 0 AND total),
    removed          bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),  -- all codes that were ever removed from the list
    archived_at      timestamptz,
    deleted_at       timestamptz,  -- the row stays if messages or sendouts refer to it; its codes are deleted
    created_at       timestamptz NOT NULL DEFAULT now(),
    case_sensitive   boolean NOT NULL DEFAULT false,  -- codes of the list that differ only in case are different codes
    CONSTRAINT text_needs_alternative CHECK (shortage <> 'text' OR alternative_text <> ''),
    CONSTRAINT deleted_is_empty CHECK (deleted_at IS NULL OR (archived_at IS NOT NULL AND total = 0))
) WITH (fillfactor = 50);  -- the counters change often and are in no index: room for HOT updates
CREATE UNIQUE INDEX coupon_list_name ON coupon_list (name) WHERE deleted_at IS NULL;

-- Templates refer to lists by name, so a list is never renamed.
CREATE FUNCTION refuse_rename() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'list % is never renamed', OLD.name USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER never_renamed BEFORE UPDATE OF name ON coupon_list
    FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION refuse_rename();

-- The codes of a list depend on this setting, so it never changes.
CREATE FUNCTION refuse_case_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'list % is case-sensitive or not from its creation on', OLD.name
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'case_never_changes';
END $$;
CREATE TRIGGER case_never_changes BEFORE UPDATE OF case_sensitive ON coupon_list
    FOR EACH ROW WHEN (OLD.case_sensitive <> NEW.case_sensitive) EXECUTE FUNCTION refuse_case_change();

-- One row per code. A reservation is only an amount (sendout_list.reserved) and changes no row of this table.
--
--     available ──→ assigned ──→ sent (its delivery is sent; the row does not change)
--         ↑            │
--         └────────────┘ its delivery is refused or cancelled; a code of an uncertain delivery stays assigned
--
-- A code exists once in the whole database, in Unicode NFC and ignoring case: for two spellings of a code, coalesce(fold,
-- lower(code)) is equal. The function fold() in coupons/files/codes.py computes `fold`, because only PostgreSQL 18 can.
-- For an ASCII code it is lower(code), so the column is NULL and takes no space. The collation "C" makes lower() and the
-- index independent of the server's locale and its version.
--
-- In a case-sensitive list, codes with equal folds may be different codes. The first of them has the variant '', like any
-- other code, so that no other list accepts a spelling of it. The variant of the others is their own spelling.
--
-- The table has no foreign keys, because millions of rows would share-lock one parent row that changes often. `coupons
-- verify` checks these references instead.
CREATE TABLE coupon (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    list_id         bigint NOT NULL,
    code            text NOT NULL CHECK (code <> '' AND char_length(code) <= 200),
    import_id       uuid NOT NULL,  -- the last import with this code
    sendout_id      uuid,
    delivery_number integer,
    fold            text COLLATE "C",  -- NULL: lower(code); never NULL in a case-sensitive list
    variant         text COLLATE "C" NOT NULL DEFAULT '',
    CONSTRAINT whole_owner CHECK ((sendout_id IS NULL) = (delivery_number IS NULL)),
    CONSTRAINT fold_of_code CHECK (
        CASE WHEN octet_length(code) = char_length(code) THEN fold IS NULL OR fold = lower(code COLLATE "C")
             ELSE fold IS NOT NULL AND fold = lower(fold COLLATE "C") END),
    -- Migration 0006 found codes that two recipients had already got. Of these rows, the later ones have an id as variant.
    CONSTRAINT variant_of_code CHECK (
        variant = '' OR (fold IS NOT NULL AND (
            variant = normalize(code) OR (sendout_id IS NOT NULL AND variant = chr(1) || id::text))))
);
-- Used by each import and by `who --code`. It also rejects a code that two imports add at the same time.
CREATE UNIQUE INDEX coupon_code ON coupon (coalesce(fold, lower(code COLLATE "C")), variant);
-- A recipient gets at most one code of each list per sendout. This index also finds the codes of a batch.
CREATE UNIQUE INDEX coupon_owner ON coupon (list_id, sendout_id, delivery_number) WHERE sendout_id IS NOT NULL;
-- Codes are assigned in the order of their ids, from `id > $last` on. Without this cursor, dead entries at the head of
-- the index halve the speed within 12 seconds.
CREATE INDEX coupon_free ON coupon (list_id, id) WHERE sendout_id IS NULL;

-- Returns the number of rows that a statement inserts, or NULL if the index coupon_code rejects one of them: then it inserts
-- none. The server does not log an error that is caught here. Its message would contain the code.
CREATE FUNCTION rows_unless_conflict(statement text, list_id bigint, import_id uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
BEGIN
    EXECUTE statement USING list_id, import_id;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    RETURN inserted;
EXCEPTION WHEN unique_violation THEN
    RETURN NULL;
END $$;

-- A variant is allowed only while another code of the same case-sensitive list has the variant ''. The lock lets a
-- transaction that deletes this other code see the variant.
CREATE FUNCTION check_variant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM coupon c JOIN coupon_list l ON l.id = c.list_id
    WHERE coalesce(c.fold, lower(c.code COLLATE "C")) = NEW.fold AND c.variant = '' AND c.fold IS NOT NULL
      AND c.list_id = NEW.list_id AND l.case_sensitive AND normalize(c.code) <> NEW.variant
    FOR KEY SHARE OF c;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a variant needs another code of its case-sensitive list'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'variant_has_a_code';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER variant_has_a_code AFTER INSERT OR UPDATE OF list_id, code, fold, variant ON coupon
    FOR EACH ROW WHEN (NEW.variant <> '' AND NEW.variant = normalize(NEW.code)) EXECUTE FUNCTION check_variant();

-- When a code is deleted, one of its variants takes its place, so that other lists still accept no spelling of it.
CREATE FUNCTION replace_deleted_code() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE coupon SET variant = '' WHERE id = (
        SELECT id FROM coupon WHERE coalesce(fold, lower(code COLLATE "C")) = OLD.fold AND variant <> ''
        ORDER BY id LIMIT 1 FOR NO KEY UPDATE);
    RETURN NULL;
END $$;
CREATE TRIGGER variant_replaces_code AFTER DELETE ON coupon
    FOR EACH ROW WHEN (OLD.fold IS NOT NULL AND OLD.variant = '') EXECUTE FUNCTION replace_deleted_code();

-- Codes that migration 0006 found a second time, from before a code existed once in the database. The report stays until
-- the list is deleted. A removed code is no longer in `coupon`; a kept one may have reached a second recipient.
CREATE TABLE duplicate_code (
    id            bigint PRIMARY KEY,  -- of its row in `coupon`
    list_id       bigint NOT NULL REFERENCES coupon_list ON DELETE CASCADE,
    code          text NOT NULL,
    state         text NOT NULL CHECK (state IN ('available', 'assigned', 'uncertain', 'sent')),  -- before the migration
    first_id      bigint,  -- the coupon with the same code that counts; NULL if a deleted list has sent the code
    first_list_id bigint,
    removed       boolean NOT NULL
);
CREATE INDEX duplicate_code_list ON duplicate_code (list_id);

-- Codes of deleted lists that may have been sent; imports reject these codes in any spelling. Only a keyed hash of each
-- folded code is stored, and the key is in another table, so that a dump of this table alone discloses no code.
CREATE TABLE retired_code (hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32));
-- The hashes from before migration 0006. They are of a code's own spelling, which cannot be folded any more.
CREATE TABLE retired_spelling (hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32));
CREATE TABLE retired_code_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (octet_length(key) = 32)
);
INSERT INTO retired_code_key (key) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
CREATE FUNCTION retired_code_hash(key bytea, code text) RETURNS bytea LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN sha256(key || sha256(key || convert_to(code, 'UTF8')));

CREATE TABLE recipient_group (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE
               CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    attributes text[] NOT NULL DEFAULT '{}',  -- names that messages may use
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE recipient (
    group_id    bigint NOT NULL,
    address_key text NOT NULL CHECK (char_length(address_key) BETWEEN 3 AND 254),  -- one for all spellings of an address
    -- Used as the mail's recipient. Only a quoted local part may contain blanks, commas and angle brackets.
    address     text NOT NULL CHECK (address !~ '[[:cntrl:][:space:],<>]'
                OR address ~ '^"([^"\\[:cntrl:]]|\\["\\])*"@[^[:cntrl:][:space:],<>"@]+$'),
    attributes  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    import_id   uuid,  -- the last import with this address
    added_by    uuid,  -- the import that added the address; later imports have updated it
    PRIMARY KEY (group_id, address_key)
);

-- A version never changes. Saving a message creates its next version, so that a running sendout keeps the version it
-- began with. When a message is deleted, the versions that sendouts have mailed stay: their refused mails can be retried.
CREATE TABLE message (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL
               CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    version    integer NOT NULL CHECK (version > 0),
    sender     text NOT NULL CHECK (sender !~ '[[:cntrl:]]'),
    reply_to   text CHECK (reply_to !~ '[[:cntrl:]]'),
    subject    text NOT NULL CHECK (subject <> ''),
    text       text,
    html       text,
    attributes text[] NOT NULL DEFAULT '{}',  -- the attributes that every recipient must have
    headers    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),  -- beyond those of every mail
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    UNIQUE (name, version),
    CHECK (text IS NOT NULL OR html IS NOT NULL)
);

CREATE TABLE message_list (
    message_id bigint NOT NULL REFERENCES message,
    list_id    bigint NOT NULL REFERENCES coupon_list,  -- the row of a list in use stays when the list is deleted
    PRIMARY KEY (message_id, list_id)
);
CREATE INDEX message_list_list ON message_list (list_id);

-- The attachments of a message, and the images that its HTML refers to (`cid:name`).
CREATE TABLE message_file (
    message_id   bigint NOT NULL REFERENCES message,
    name         text NOT NULL CHECK (name <> '' AND name !~ '[[:cntrl:]/]'),
    content_type text NOT NULL,
    inline       boolean NOT NULL,
    content      bytea NOT NULL,
    PRIMARY KEY (message_id, name)
);

-- A file for an import, stored in chunks, so that processes need no shared disk. It is deleted when its import ends, or a
-- day after the import has failed, so that the import can be retried with another format.
CREATE TABLE upload (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    size_bytes bigint,  -- NULL until the upload is complete; an import reads only complete uploads
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz  -- set when its import has failed
);
CREATE TABLE upload_chunk (
    upload_id uuid NOT NULL REFERENCES upload ON DELETE CASCADE,
    number    integer NOT NULL,
    data      bytea NOT NULL,
    PRIMARY KEY (upload_id, number)
);

-- An import of codes into a list, or of recipients into a group.
--
--     queued ──→ running ──→ finished
--       │           ├──────→ failed     the source cannot be read
--       └───────────┴──────→ cancelled  by an operator
--
-- Each chunk of lines is committed in one transaction: accepted lines, rejected lines with their reasons, counters and
-- `position`. If a worker dies, the import stays running. The next worker reads the source from the start and continues
-- after `position`, provided that the text before `position` still has the same `digest`.
CREATE TABLE import_job (
    id          uuid PRIMARY KEY,
    list_id     bigint REFERENCES coupon_list ON DELETE CASCADE,
    group_id    bigint REFERENCES recipient_group ON DELETE SET NULL,
    mode        text NOT NULL CHECK (mode IN ('add', 'replace', 'delete', 'undo')),
    source      text NOT NULL,
    format      jsonb NOT NULL DEFAULT '{}',
    columns     text[],  -- of a recipient file, the address column first; NULL until the header is read
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
    reason      text,
    lines       bigint NOT NULL DEFAULT 0 CHECK (lines >= 0),
    blank       bigint NOT NULL DEFAULT 0 CHECK (blank >= 0),
    added       bigint NOT NULL DEFAULT 0 CHECK (added >= 0),
    removed     bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),
    rejected    bigint NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    existing    bigint NOT NULL DEFAULT 0 CHECK (existing >= 0),  -- codes kept by a replace; recipients updated
    kept_reserved bigint NOT NULL DEFAULT 0 CHECK (kept_reserved >= 0),  -- codes not removed: reserved for sendouts
    kept_assigned bigint NOT NULL DEFAULT 0 CHECK (kept_assigned >= 0),  -- codes not removed: assigned to recipients
    position    bigint NOT NULL DEFAULT 0 CHECK (position >= 0),  -- bytes of decompressed text that are committed
    digest      bytea CHECK (octet_length(digest) = 32),  -- sha256 of the text up to `position`
    read_bytes  bigint NOT NULL DEFAULT 0,  -- bytes of the (compressed) source that were read for this text
    total_bytes bigint,
    seen_bytes  bigint NOT NULL DEFAULT 0,  -- this and `done_bytes` show the progress between the commits of chunks
    done_bytes  bigint NOT NULL DEFAULT 0,  -- a byte counts half when it is read and half when it is imported
    to_remove   bigint CHECK (to_remove >= 0),  -- in mode replace or undo, after the whole text: about how much to remove
    retries     integer NOT NULL DEFAULT 0,  -- since the last committed chunk
    due_at      timestamptz NOT NULL DEFAULT now(),  -- no worker claims the import earlier
    claimed_at  timestamptz,  -- this and the next three columns give the import's lines per second
    claimed_bytes bigint NOT NULL DEFAULT 0,
    claimed_lines bigint NOT NULL DEFAULT 0,
    progressed_at timestamptz,
    lease_token uuid,
    lease_owner text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    group_name  text,  -- stays when the group is deleted
    read_as     text,  -- how the file was read: kind, encoding, separator, header, column
    notices     text[] NOT NULL DEFAULT '{}',  -- what was assumed, skipped, cut or left out
    confirmed   boolean NOT NULL DEFAULT false,  -- an operator has seen the numbers of a replacement or deletion
    allow_empty boolean NOT NULL DEFAULT false,  -- whether a replacement may leave nothing of the file
    checked     bytea[],  -- sha256 of the text that was run dry, up to the end of each MiB; NULL: no dry run
    first_id    bigint,  -- codes that this import adds have larger ids, codes that it keeps have smaller ones
    CONSTRAINT finished_at_when_ended CHECK ((finished_at IS NOT NULL) = (state IN ('finished', 'failed', 'cancelled'))),
    CONSTRAINT list_or_group CHECK ((list_id IS NULL) <> (group_name IS NULL) AND (list_id IS NULL OR group_id IS NULL)),
    CONSTRAINT unfinished_has_a_target CHECK (finished_at IS NOT NULL OR list_id IS NOT NULL OR group_id IS NOT NULL),
    CONSTRAINT only_replace_removes CHECK (to_remove IS NULL OR mode IN ('replace', 'undo')),
    CONSTRAINT position_has_digest CHECK (position = 0 OR digest IS NOT NULL),
    CONSTRAINT lines_add_up
        CHECK (lines = blank + added + existing + rejected + CASE WHEN mode = 'delete' THEN removed ELSE 0 END)
) WITH (fillfactor = 50);
CREATE INDEX import_job_unfinished ON import_job (created_at) WHERE finished_at IS NULL;
CREATE INDEX import_job_list ON import_job (list_id, created_at);
CREATE INDEX import_job_group ON import_job (group_id, created_at);
CREATE INDEX import_job_undo ON import_job (source) WHERE mode = 'undo';

-- For each chunk of codes that an import added to a list: the sha256 of its codes, if the list then had all of them. While
-- coupon_list.removed is unchanged, the list still has them, so a second import of the chunk does not look up each code.
CREATE TABLE imported_chunk (
    list_id   bigint NOT NULL REFERENCES coupon_list ON DELETE CASCADE,
    digest    bytea NOT NULL CHECK (octet_length(digest) = 32),
    import_id uuid NOT NULL,
    removed   bigint NOT NULL,  -- coupon_list.removed when the chunk was imported
    PRIMARY KEY (list_id, digest)
);

-- The shapes of a list's codes (coupons/files/code_shapes.py), which show that a file was probably meant for another list.
-- No row: not known yet. They are computed from a sample, and extended when the first chunk of an import is committed.
CREATE TABLE list_shapes (
    list_id bigint PRIMARY KEY REFERENCES coupon_list ON DELETE CASCADE,
    shapes  jsonb NOT NULL CHECK (jsonb_typeof(shapes) = 'array')
);

-- A recurring import. At `next_at`, a worker creates its import, stores the run and advances `next_at`, all in one
-- transaction that locks the row: each occurrence runs at most once, whatever number of workers is running.
CREATE TABLE import_schedule (
    id         uuid PRIMARY KEY,  -- the ids of its imports are derived from it and from the time of the occurrence
    name       text NOT NULL UNIQUE
               CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    cron       text NOT NULL CHECK (cron !~ '[[:cntrl:]]'),
    zone       text NOT NULL,  -- the time zone of `cron`
    command    jsonb NOT NULL CHECK (jsonb_typeof(command) = 'object'),  -- the import command, without its id
    next_at    timestamptz,  -- NULL: paused, or no time matches any more
    run_at     timestamptz,  -- an operator wants one more run, also while it is paused
    paused_at  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),  -- runs before a change are no failures of it
    CONSTRAINT paused_has_no_next CHECK (paused_at IS NULL OR next_at IS NULL)
);
CREATE INDEX import_schedule_due ON import_schedule (least(next_at, run_at));

-- The newest occurrences of a recurring import: with the import that it created, or with the reason why it created none.
CREATE TABLE import_run (
    schedule_id uuid NOT NULL REFERENCES import_schedule ON DELETE CASCADE,
    due_at      timestamptz NOT NULL,
    import_id   uuid,  -- the import is deleted with its list
    reason      text,
    skipped     boolean NOT NULL DEFAULT false,  -- because the previous import was not finished, or it was paused
    missed      integer NOT NULL DEFAULT 0 CHECK (missed >= 0),  -- earlier occurrences while no worker was running
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule_id, due_at),
    CONSTRAINT run_has_a_result CHECK ((import_id IS NULL) <> (reason IS NULL)),
    CONSTRAINT skipped_has_a_reason CHECK (NOT skipped OR reason IS NOT NULL)
);

-- The log of an import; its texts contain no codes and no addresses.
CREATE TABLE import_event (
    import_id uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    text      text NOT NULL,
    PRIMARY KEY (import_id, number)
);

-- What an import removed, for 7 days, so that it can be undone: codes, or recipients as three JSON texts with tabs between
-- them (address_key, address, attributes). One row holds the codes of one transaction, or about
-- 4 MiB of recipients.
CREATE TABLE import_removal (
    import_id uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    texts     text[] NOT NULL,
    lines     integer NOT NULL GENERATED ALWAYS AS (cardinality(texts)) STORED,
    PRIMARY KEY (import_id, number)
);
-- This column is not compressed, like those of import_rejection.
ALTER TABLE import_removal ALTER texts SET STORAGE EXTERNAL;

-- Rejected lines with their reasons, so that they can be fixed and imported again. One row holds up to 10,000 lines: a
-- million duplicates are stored in half a second instead of three.
CREATE TABLE import_rejection (
    import_id  uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    first_line bigint NOT NULL,
    lines      bigint[] NOT NULL,
    texts      text[] NOT NULL,  -- the rejected codes; for an import with `columns`, the rejected rows as JSON objects
    reasons    text[] NOT NULL,
    PRIMARY KEY (import_id, first_line),
    CONSTRAINT each_line_has_a_reason
        CHECK (first_line = ANY (lines) AND cardinality(lines) = ALL (ARRAY[cardinality(texts), cardinality(reasons)]))
);
-- These columns are not compressed: codes hardly shrink, and storing a million lines would take three times as long.
ALTER TABLE import_rejection
    ALTER lines SET STORAGE EXTERNAL, ALTER texts SET STORAGE EXTERNAL, ALTER reasons SET STORAGE EXTERNAL;

-- The job that mails a message.
--
--     queued ──→ preparing ──┬─→ sending ──→ finished
--                            │   sending ←→ paused: by an operator, because the relay refuses all mails, or after the
--                            │                      first part (`first_part`)
--                            ├─→ interrupted: a list has too few codes; no code is reserved, no mail was sent
--                            │   interrupted ──→ sending: resumed by an operator, or automatically (`auto_resume`)
--                            └─→ failed: it can never be sent, as there are no recipients or one lacks an attribute
--     queued ─────────────────→ failed: an import in the command's `after` cannot finish
--
-- A sending sendout whose `start_at` is in the future is shown as scheduled. Its codes are reserved; no worker claims its
-- batches. Being scheduled is not stored, so that no worker has to end it in time (docs/decisions/0017).
--
-- An operator can cancel a sendout in any state except finished and failed. Its state is then cancelled.
-- A finished sendout is sending again once an operator retries its refused mails or resends its uncertain ones.
CREATE TABLE sendout (
    id          uuid PRIMARY KEY,
    message_id  bigint NOT NULL REFERENCES message,
    group_id    bigint REFERENCES recipient_group,  -- NULL if the command contained the recipients, or the group is deleted
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN
                ('queued', 'preparing', 'interrupted', 'sending', 'paused', 'finished', 'cancelled', 'failed')),
    reason      text,  -- why the sendout is interrupted, paused or failed
    waiting_reason text,  -- why a sending sendout makes no progress now
    start_at    timestamptz,  -- no mail is sent earlier; a scheduled or paused sendout can be rescheduled
    per_hour    double precision CHECK (per_hour > 0),  -- rate limit in mails per hour; NULL for no limit
    over_minutes integer CHECK (over_minutes > 0),  -- instead of a rate limit: spread evenly over this time
    auto_resume boolean NOT NULL DEFAULT false,  -- an interrupted sendout is resumed once its lists have enough codes
    next_batch_at timestamptz NOT NULL DEFAULT now(),  -- no batch is claimed earlier: `start_at` or rate limit
    recipients  integer CHECK (recipients >= 0),  -- NULL until the recipients are copied into delivery
    lease_token uuid,
    lease_owner text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,  -- when its first mail may be sent; in the future while it is scheduled
    finished_at timestamptz,  -- for a cancelled or failed sendout: when its last batch was closed
    group_name  text,  -- the group by its name, if it did not exist when the sendout was accepted, or is deleted
    not_resumed text,  -- why the last requested resume was rejected while it waited
    resumed_at  timestamptz,  -- when it was last resumed after a pause
    first_part  integer CHECK (first_part > 0),  -- it pauses after the mails to these many recipients; NULL: it does not
    rest_held   boolean NOT NULL DEFAULT false,  -- no batch after delivery `first_part` is claimed
    first_mailed_at timestamptz,  -- when it paused after its first part: the next resume releases the rest
    skip_already_mailed boolean NOT NULL DEFAULT false,  -- leave out recipients who got the message in another sendout
    already_mailed integer NOT NULL DEFAULT 0 CHECK (already_mailed >= 0),  -- recipients that were left out for this
    CONSTRAINT sending_has_recipients
        CHECK (state NOT IN ('sending', 'interrupted', 'finished') OR coalesce(recipients, 0) > 0),
    CONSTRAINT interrupted_never_started CHECK (state <> 'interrupted' OR started_at IS NULL),
    CONSTRAINT spread_has_a_pace CHECK (over_minutes IS NULL OR recipients IS NULL OR per_hour IS NOT NULL),
    CONSTRAINT held_after_a_part CHECK (NOT rest_held OR coalesce(first_part < recipients, false)),
    -- The rest is held from the preparation on until it pauses after its first part.
    CONSTRAINT part_holds_the_rest CHECK (
        first_part IS NULL OR recipients IS NULL OR first_part >= recipients OR rest_held OR first_mailed_at IS NOT NULL),
    CONSTRAINT left_out_on_request CHECK (already_mailed = 0 OR skip_already_mailed)
) WITH (fillfactor = 50);
CREATE INDEX sendout_unfinished ON sendout (created_at) WHERE finished_at IS NULL;
CREATE INDEX sendout_created ON sendout (created_at);
CREATE INDEX sendout_state ON sendout (state, created_at);  -- the outbox shows the newest sendouts of one state
CREATE INDEX sendout_message ON sendout (message_id);  -- finds the earlier sendouts of a message
CREATE INDEX sendout_group ON sendout (group_id) WHERE group_id IS NOT NULL;  -- to delete a group

-- The foreign key has locked the message, so this trigger sees a concurrent deletion.
CREATE FUNCTION refuse_deleted_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM message WHERE id = NEW.message_id AND deleted_at IS NOT NULL) THEN
        RAISE EXCEPTION 'a deleted message is not sent'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'message_exists';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER message_exists AFTER INSERT OR UPDATE OF message_id ON sendout
    FOR EACH ROW EXECUTE FUNCTION refuse_deleted_message();

CREATE FUNCTION refuse_deletion_while_sending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM sendout WHERE message_id = NEW.id AND finished_at IS NULL) THEN
        RAISE EXCEPTION 'an unfinished sendout needs the message'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'message_is_sent';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER message_is_sent BEFORE UPDATE OF deleted_at ON message
    FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION refuse_deletion_while_sending();

-- A sendout that waits for imports before it is prepared (state queued) or resumed (interrupted or paused). Waiting is not
-- a state: no worker claims a sendout that has a row here. The row is deleted when the wait ends. Ids of imports are
-- stored instead of comparing times, because clocks go back and differ between servers (docs/decisions/0014).
CREATE TABLE sendout_wait (
    sendout_id   uuid PRIMARY KEY REFERENCES sendout,
    command_id   uuid NOT NULL,  -- the sendout or resume command that waits
    body         bytea NOT NULL,  -- this command, in case that it is rejected
    after        uuid[] NOT NULL,  -- imports of the command's `after`: they must finish; some may not have arrived
    unfinished   uuid[] NOT NULL,  -- imports into its group and lists that were unfinished when it was accepted: must end
    arrive_until timestamptz NOT NULL,  -- when the command is rejected if an import in `after` has not arrived
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT waits_for_an_import CHECK (after <> '{}' OR unfinished <> '{}')
);

-- Commands that were rejected after they had been accepted. A worker publishes each to the queue `coupons.dead`, and then
-- deletes its row.
CREATE TABLE dead_letter (
    command_id uuid PRIMARY KEY REFERENCES command,
    body       bytea NOT NULL,
    reason     text NOT NULL
);

-- The codes that a sendout needs of one list. Admission reserves codes of all lists of the sendout or of none. Each
-- code is counted once: reserved until it is assigned, assigned until its delivery is sent.
CREATE TABLE sendout_list (
    sendout_id       uuid NOT NULL REFERENCES sendout,
    list_id          bigint NOT NULL REFERENCES coupon_list,
    shortage         text NOT NULL DEFAULT 'pause' CHECK (shortage IN ('pause', 'text')),
    alternative_text text NOT NULL DEFAULT '',  -- this and `shortage` are copied from the list at admission
    needed           bigint NOT NULL CHECK (needed >= 0),  -- the number of deliveries that need the list
    reserved         bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),  -- not yet assigned to a delivery
    assigned         bigint NOT NULL DEFAULT 0 CHECK (assigned >= 0),  -- assigned to deliveries that are not sent yet
    sent             bigint NOT NULL DEFAULT 0 CHECK (sent >= 0),
    missing          bigint NOT NULL DEFAULT 0 CHECK (missing BETWEEN 0 AND needed),  -- at the last admission
    lacking          integer NOT NULL DEFAULT 0 CHECK (lacking >= 0),  -- mails for which the alternative text lacks an attribute
    PRIMARY KEY (sendout_id, list_id),
    CONSTRAINT codes_within_need CHECK (reserved + assigned + sent <= needed)
) WITH (fillfactor = 50);
CREATE INDEX sendout_list_list ON sendout_list (list_id);

-- The unit that workers claim. A sendout's progress is the sum over these few rows, never a count over deliveries.
--
-- `in_flight` holds the intent to send: the numbers of deliveries that may have been mailed and whose outcomes are not
-- recorded yet. It is committed before the mails are handed over. If the worker dies, these deliveries become
-- uncertain. One small update of this row covers many mails. When the intent was a state of each delivery, every mail
-- needed a second update (docs/decisions/0005).
--
-- The indexes contain `closed` instead of `remaining`, because `remaining` changes with each flush (the transaction
-- that records outcomes and intents) and these updates should be HOT.
CREATE TABLE delivery_batch (
    sendout_id     uuid NOT NULL REFERENCES sendout,
    number         integer NOT NULL,
    first_delivery integer NOT NULL,
    last_delivery  integer NOT NULL,
    remaining      integer NOT NULL CHECK (remaining >= 0),  -- pending or deferred
    sent           integer NOT NULL DEFAULT 0 CHECK (sent >= 0),
    refused        integer NOT NULL DEFAULT 0 CHECK (refused >= 0),
    uncertain      integer NOT NULL DEFAULT 0 CHECK (uncertain >= 0),
    cancelled      integer NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    closed         boolean NOT NULL DEFAULT false,
    due_at         timestamptz NOT NULL DEFAULT now(),
    lease_token    uuid,
    lease_owner    text,
    lease_until    timestamptz,
    in_flight      integer[] NOT NULL DEFAULT '{}',
    last_flush     uuid,  -- the id of the last flush: shows whether a COMMIT without a reply succeeded
    flushed_at     timestamptz,
    claimed_at     timestamptz,
    deferred       integer NOT NULL DEFAULT 0 CHECK (deferred >= 0),  -- of the remaining ones
    next_attempt_at timestamptz,  -- when the first deferred one is due
    outcomes       bigint NOT NULL DEFAULT 0,  -- of all attempts; never decreases
    first_outcomes bigint NOT NULL DEFAULT 0,  -- of attempts of pending deliveries, not of deferred ones
    progressed_at  timestamptz,  -- when the last outcome was recorded
    PRIMARY KEY (sendout_id, number),
    CONSTRAINT batch_adds_up
        CHECK (remaining + sent + refused + uncertain + cancelled = last_delivery - first_delivery + 1),
    CONSTRAINT closed_when_none_remain CHECK (closed = (remaining = 0)),
    CONSTRAINT deferred_is_remaining CHECK (deferred <= remaining),
    CONSTRAINT deferred_has_a_time CHECK ((deferred > 0) = (next_attempt_at IS NOT NULL)),
    CONSTRAINT in_flight_is_remaining CHECK (cardinality(in_flight) <= remaining),
    CONSTRAINT in_flight_under_a_lease CHECK (in_flight = '{}' OR lease_token IS NOT NULL)
) WITH (fillfactor = 50);
-- The batch that became due last is claimed first, so that a deferred mail does not wait for the whole sendout.
CREATE INDEX delivery_batch_due ON delivery_batch (sendout_id, due_at DESC, number) WHERE NOT closed;
CREATE INDEX delivery_batch_uncertain ON delivery_batch (sendout_id) WHERE uncertain > 0;

-- The outcomes of a sendout at several times: the sums of `outcomes` and `first_outcomes` over its batches. They give its
-- rate and the time left. Workers append a sample every few seconds and keep the last minute. The row is deleted when
-- the sendout ends.
CREATE TABLE sendout_speed (
    sendout_id     uuid PRIMARY KEY REFERENCES sendout,
    times          timestamptz[] NOT NULL,
    outcomes       bigint[] NOT NULL,
    first_outcomes bigint[] NOT NULL,
    CONSTRAINT each_sample_is_whole
        CHECK (cardinality(times) = ALL (ARRAY[cardinality(outcomes), cardinality(first_outcomes)]))
) WITH (fillfactor = 50);

-- One recipient's mail.
--
--     pending, deferred ──┬─→ sent
--                         ├─→ refused     by the relay; its codes return to their lists
--                         ├─→ deferred    retried at `due_at`
--                         ├─→ cancelled   its sendout was cancelled or has failed; its codes return to their lists
--                         └─→ uncertain   handed over without a reply: it may have arrived, so its codes stay assigned
--     uncertain ──────────┬─→ pending     resend: by an operator or the policy, unless `never_resend`
--                         └─→ sent        accept: by an operator or the policy
--     refused ──────────────→ pending     retry: by an operator, after codes of all its lists were reserved again
--
-- A delivery that was ever uncertain is never refused or cancelled, because its recipient may have the code.
-- A mail needs a list if it prints the list's coupon. Which lists it needs is computed when the sendout is prepared, from
-- the conditions in the message and the recipient's attributes (docs/decisions/0015). A code that the rendered mail does
-- not print returns to its list, and the list is removed from `lists`.
--
-- While a mail is handed over, its number is in `in_flight` of its batch. No index contains the state, so that updates
-- of the state are HOT, which halves the WAL.
CREATE TABLE delivery (
    sendout_id     uuid NOT NULL,
    number         integer NOT NULL CHECK (number > 0),
    address_key    text NOT NULL,
    address        text NOT NULL CHECK (address !~ '[[:cntrl:][:space:],<>]'
                   OR address ~ '^"([^"\\[:cntrl:]]|\\["\\])*"@[^[:cntrl:][:space:],<>"@]+$'),
    attributes     jsonb NOT NULL DEFAULT '{}',
    state          text NOT NULL DEFAULT 'pending' CHECK (state IN
                   ('pending', 'deferred', 'sent', 'refused', 'uncertain', 'cancelled')),
    attempts       integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at         timestamptz,  -- when a deferred mail is retried
    reply          text,  -- the relay's last reply, or why there is none; no code reads it
    changed_at     timestamptz,
    deferred_since timestamptz,  -- when it was first deferred; a mail that is deferred for too long is refused
    was_uncertain  boolean NOT NULL DEFAULT false,
    never_resend   boolean NOT NULL DEFAULT false,  -- set by the restore guard: it may have been sent with another code
    lists          bigint[],  -- the lists that the mail needs; NULL: all lists of the message
    PRIMARY KEY (sendout_id, number),
    -- Used by `who --email`. sendout_id must not be the first column: for a sendout newer than the last ANALYZE, the
    -- planner expects one row and would read all its deliveries through this index (310 mails/s instead of 8,000).
    CONSTRAINT one_mail_per_address UNIQUE (address_key, sendout_id),
    CONSTRAINT deferred_is_due CHECK (state <> 'deferred' OR (due_at IS NOT NULL AND deferred_since IS NOT NULL)),
    -- A mail of this delivery may have arrived, so the recipient keeps its codes, whatever a later attempt returns.
    CONSTRAINT uncertain_keeps_its_code CHECK (NOT was_uncertain OR state NOT IN ('refused', 'cancelled')),
    CONSTRAINT never_resent CHECK (NOT never_resend OR state IN ('uncertain', 'sent'))
) WITH (fillfactor = 60);

-- A retry may correct the address of a mail that no relay has accepted. Otherwise the code of a mail that has arrived, or
-- may have arrived, would belong to a recipient who does not have it.
CREATE FUNCTION refuse_correction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the address of a mail that may have arrived is final'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'address_is_final';
END $$;
CREATE TRIGGER address_is_final BEFORE UPDATE OF address, address_key ON delivery
    FOR EACH ROW WHEN ((OLD.address, OLD.address_key) IS DISTINCT FROM (NEW.address, NEW.address_key)
                       AND (OLD.was_uncertain OR OLD.state NOT IN ('refused', 'deferred'))) EXECUTE FUNCTION refuse_correction();

-- Returns whether a delivery with these values counts as mailed: its mail was sent, or may have arrived.
CREATE FUNCTION is_mailed(state text, was_uncertain boolean) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT state IN ('sent', 'uncertain') OR was_uncertain
$$;

-- Returns whether the recipient with this address key got a version of the message.
-- `sendouts` are the sendouts to look at, or NULL for all of the message. One of the given sendouts takes one descent in
-- the index, whatever other mails the recipient got. With equality on both columns, the planner may read all deliveries of
-- a sendout through the primary key, if there are no statistics; for a comparison of rows, only one index is possible.
CREATE FUNCTION was_mailed(key text, of_message text, sendouts uuid[]) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF sendouts IS NULL THEN
        RETURN EXISTS (
            SELECT FROM delivery d
            WHERE d.address_key = key AND is_mailed(d.state, d.was_uncertain)
              AND EXISTS (SELECT FROM sendout s JOIN message m ON m.id = s.message_id
                          WHERE s.id = d.sendout_id AND m.name = of_message OFFSET 0));
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(sendouts) AS earlier (id) CROSS JOIN LATERAL (
            SELECT d.state, d.was_uncertain FROM delivery d
            WHERE (d.address_key, d.sendout_id) >= (key, earlier.id) AND (d.address_key, d.sendout_id) <= (key, earlier.id)
            ORDER BY d.address_key, d.sendout_id LIMIT 1
        ) d
        WHERE is_mailed(d.state, d.was_uncertain));
END $$;

-- Returns the address keys of the recipients who got a version of the message: of those in the group and of `keys`, or of
-- more. If the sendouts `hashed` are given, all their deliveries are read, and the caller joins with a hash: 2 to 3 µs
-- per recipient. Else each recipient is looked up in the sendouts `probed` (NULL: in all of the message), in the order of the
-- index, which takes half the time of another order. The planner inlines the function and drops the unused half.
CREATE FUNCTION already_mailed(of_group bigint, keys text[], of_message text, probed uuid[], hashed uuid[])
RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT DISTINCT address_key FROM delivery
    WHERE cardinality(hashed) > 0 AND sendout_id = ANY (hashed) AND is_mailed(state, was_uncertain)
    UNION ALL
    SELECT address_key FROM (
        SELECT address_key FROM recipient WHERE group_id = of_group UNION ALL SELECT unnest(keys) ORDER BY 1
    ) audience
    WHERE cardinality(probed) IS DISTINCT FROM 0 AND was_mailed(address_key, of_message, probed)
$$;

-- Like was_mailed(): whether the recipient holds a code of one of these lists, because it is assigned or was sent to them.
CREATE FUNCTION holds_code(key text, of_lists bigint[], sendouts uuid[]) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF sendouts IS NULL THEN
        RETURN EXISTS (
            SELECT FROM delivery d
            WHERE d.address_key = key
              AND EXISTS (SELECT FROM coupon c
                          WHERE c.list_id = ANY (of_lists) AND c.sendout_id = d.sendout_id AND c.delivery_number = d.number
                          OFFSET 0));
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(sendouts) AS earlier (id) CROSS JOIN LATERAL (
            SELECT d.sendout_id, d.number FROM delivery d
            WHERE (d.address_key, d.sendout_id) >= (key, earlier.id) AND (d.address_key, d.sendout_id) <= (key, earlier.id)
            ORDER BY d.address_key, d.sendout_id LIMIT 1
        ) d
        WHERE EXISTS (SELECT FROM coupon c
                      WHERE c.list_id = ANY (of_lists) AND c.sendout_id = d.sendout_id AND c.delivery_number = d.number
                      OFFSET 0));
END $$;

-- Like already_mailed(): the address keys of the recipients who hold a code of one of these lists.
CREATE FUNCTION code_holders(of_group bigint, keys text[], of_lists bigint[], probed uuid[], hashed uuid[])
RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT DISTINCT d.address_key
    FROM delivery d JOIN coupon c ON c.sendout_id = d.sendout_id AND c.delivery_number = d.number
    WHERE cardinality(hashed) > 0 AND d.sendout_id = ANY (hashed)
      AND c.sendout_id = ANY (hashed) AND c.list_id = ANY (of_lists)
    UNION ALL
    SELECT address_key FROM (
        SELECT address_key FROM recipient WHERE group_id = of_group UNION ALL SELECT unnest(keys) ORDER BY 1
    ) audience
    WHERE cardinality(probed) IS DISTINCT FROM 0 AND holds_code(address_key, of_lists, probed)
$$;

-- The earlier attempts of deliveries that were tried more than once. Together with `delivery.reply` (the latest
-- attempt), the table has the relay's reply to each attempt.
CREATE TABLE delivery_attempt (
    sendout_id uuid NOT NULL,
    number     integer NOT NULL,
    attempt    integer NOT NULL CHECK (attempt > 0),
    outcome    text NOT NULL CHECK (outcome IN ('deferred', 'uncertain', 'refused')),
    reply      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    address    text,  -- the recipient of this attempt, if the address was corrected later
    PRIMARY KEY (sendout_id, number, attempt)
);

-- The workers that run, and dead ones for an hour. A worker renews its row every COUPONS_HEARTBEAT_SECONDS while its event
-- loop and its database work, and deletes it when it ends. `alive_until` is a lease: once it has expired, the worker shows
-- no life. Nothing depends on these rows except what users see.
CREATE TABLE worker (
    id          uuid PRIMARY KEY,  -- new for each start
    host        text NOT NULL,
    pid         integer NOT NULL,
    roles       text[] NOT NULL,
    version     text NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    last_seen   timestamptz NOT NULL DEFAULT now(),
    alive_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The rate limit that all workers share: one row with the time when the next mail may be sent.
CREATE TABLE rate_limit (
    name         text PRIMARY KEY CHECK (name = 'mail'),
    next_mail_at timestamptz NOT NULL
);

-- A restored database does not know which mails were sent after the backup. So workers send only while this database is
-- accepted. The migration that creates this table accepts an empty database; after a restore, an operator accepts the
-- restored one (docs/decisions/0011). The row without `ended_at` is in force; the other rows are history. The table has
-- no key: a data-only restore must be able to add its row next to the existing one, or the restore would not be
-- noticed. A migration must not rewrite these rows, because that would look like a restore.
CREATE TABLE restore_guard (
    number      integer NOT NULL CHECK (number > 0),
    accepted_at timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,  -- when the next row replaced this one
    cluster     bigint NOT NULL,  -- the server's identifier; changes on another server and with pg_upgrade
    timeline    integer NOT NULL,  -- changes when a replica is promoted and with a point-in-time recovery
    database    oid NOT NULL,  -- changes with CREATE DATABASE … TEMPLATE
    written_by  xid NOT NULL DEFAULT pg_current_xact_id()::xid  -- a row restored from a dump has another xmin
);

-- Returns the identity of this database now; the timeline is NULL during recovery. pg_control_checkpoint() cannot be
-- used, because it shows a promotion only after the next checkpoint.
CREATE FUNCTION this_database(OUT cluster bigint, OUT timeline integer, OUT database oid) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT c.system_identifier, d.oid,
           CASE WHEN NOT pg_is_in_recovery()
                THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END
    INTO cluster, database, timeline
    FROM pg_control_system() c CROSS JOIN pg_database d WHERE d.datname = current_database();
END $$;

-- Returns whether workers may send. Every statement that claims or uses a batch calls this function once, which takes
-- 0.02 ms. PL/pgSQL caches the plan; as an SQL function it took 0.18 ms.
CREATE FUNCTION database_accepted() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT bool_and(g.written_by = g.xmin AND g.cluster = n.cluster AND g.timeline = n.timeline
                        AND g.database = n.database)
        FROM restore_guard g CROSS JOIN this_database() n WHERE g.ended_at IS NULL), false);
END $$;

INSERT INTO restore_guard (number, cluster, timeline, database) SELECT 1, cluster, timeline, database FROM this_database();
