-- The whole database, with the reason of each table, state, constraint and index.
-- `coupons migrate` builds it from coupons/migrations/; a test proves that both are the same.
--
-- Words: a LIST holds single-use COUPONs; a MESSAGE is what a marketer wrote; a SENDOUT mails a message to
-- everybody of a GROUP; a DELIVERY is one recipient's mail in a sendout; a BATCH is some 1,000 deliveries that one
-- worker holds under a LEASE.
--
-- A lease is three columns: who holds the row, until when by this database's clock, and a token that every write of
-- the holder carries. A worker whose token is no longer in the row has lost it and must stop.
--
-- Locks are always taken in this order: delivery_batch, sendout, coupon_list (by id), sendout_list (by list).
-- Rows of coupon are only ever locked with SKIP LOCKED, by the holder of the lease of their delivery's batch, or by an
-- import that takes free ones over, which then holds nothing that a batch waits for.

-- Every command that could be read. The publisher chose its id; the same id again is the same command and changes
-- nothing.
CREATE TABLE command (
    id          uuid PRIMARY KEY,
    type        text NOT NULL CHECK (type IN ('import', 'sendout', 'resume')),
    digest      bytea NOT NULL,  -- sha256 of the command's content: the same id with other content is refused
    rejection_reason text,       -- why it was not carried out; asked again, it is answered the same
    received_at timestamptz NOT NULL DEFAULT now()
);

-- Codes are counted by amounts, so that a reservation costs the same for ten recipients and for ten million. Each code is
-- counted once; the last three counters are in sendout_list:
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
    removed          bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),  -- codes that imports ever took out of it
    archived_at      timestamptz,
    deleted_at       timestamptz,  -- the row stays where messages or sendouts name it; its codes are gone
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT text_needs_alternative CHECK (shortage <> 'text' OR alternative_text <> ''),
    CONSTRAINT deleted_is_empty CHECK (deleted_at IS NULL OR (archived_at IS NOT NULL AND total = 0))
) WITH (fillfactor = 50);  -- the counters change often and are in no index: room for HOT updates
CREATE UNIQUE INDEX coupon_list_name ON coupon_list (name) WHERE deleted_at IS NULL;

-- Templates name lists, so a list is never renamed.
CREATE FUNCTION refuse_rename() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'list % is never renamed', OLD.name USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER never_renamed BEFORE UPDATE OF name ON coupon_list
    FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION refuse_rename();

-- One row per code.
--     available ──────────→ assigned ──────────→ sent
--         ↑  (reserved: an     │   its delivery is sent
--         │  amount, no row)   │
--         └────────────────────┘ its delivery is refused or cancelled; the code of an uncertain one stays assigned
-- No foreign keys: millions of rows would share-lock one hot parent. `coupons verify` checks what they would.
CREATE TABLE coupon (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    list_id         bigint NOT NULL,
    code            text NOT NULL CHECK (code <> '' AND char_length(code) <= 200),
    import_id       uuid NOT NULL,  -- the import that brought it
    sendout_id      uuid,
    delivery_number integer,
    PRIMARY KEY (list_id, code),  -- a code is once in its list; `who --code` and each import look here
    CONSTRAINT whole_owner CHECK ((sendout_id IS NULL) = (delivery_number IS NULL))
);
-- Nobody gets two codes of one list in one sendout. Also finds the codes of a batch.
CREATE UNIQUE INDEX coupon_owner ON coupon (list_id, sendout_id, delivery_number) WHERE sendout_id IS NOT NULL;
-- Assigning takes the next available codes with `id > $last`: without the cursor, dead entries at the head of this index
-- halve the speed within 12 seconds.
CREATE INDEX coupon_free ON coupon (list_id, id) WHERE sendout_id IS NULL;

-- Codes that may have been sent, of lists that were deleted: no list takes them again. Only their hash is kept, with a
-- key of this database, so that a dump of the table alone names no code.
CREATE TABLE retired_code (hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32));
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
    attributes text[] NOT NULL DEFAULT '{}',  -- names that its recipients have: what a message may use
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE recipient (
    group_id    bigint NOT NULL,
    address_key text NOT NULL CHECK (char_length(address_key) BETWEEN 3 AND 254),  -- what "the same address" means
    address     text NOT NULL CHECK (address !~ '[[:cntrl:][:space:],<>]'),        -- what is mailed
    attributes  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    import_id   uuid,  -- the last one that brought it
    PRIMARY KEY (group_id, address_key)
);

-- Never changed: saving again makes the next version, so that a running sendout keeps what it began with.
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
    attributes text[] NOT NULL DEFAULT '{}',  -- names that every recipient must have
    headers    jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object'),  -- beside those of every mail
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version),
    CHECK (text IS NOT NULL OR html IS NOT NULL)
);

CREATE TABLE message_list (
    message_id bigint NOT NULL REFERENCES message,
    list_id    bigint NOT NULL REFERENCES coupon_list,  -- a list that a message names cannot be deleted
    PRIMARY KEY (message_id, list_id)
);
CREATE INDEX message_list_list ON message_list (list_id);

-- Attachments, and images that the HTML shows (`cid:name`).
CREATE TABLE message_file (
    message_id   bigint NOT NULL REFERENCES message,
    name         text NOT NULL CHECK (name <> '' AND name !~ '[[:cntrl:]/]'),
    content_type text NOT NULL,
    inline       boolean NOT NULL,
    content      bytea NOT NULL,
    PRIMARY KEY (message_id, name)
);

-- A file on its way to a worker, in chunks, so that no shared disk is needed. Deleted when its import ends.
CREATE TABLE upload (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    size_bytes bigint,  -- known when complete; an upload without it is not readable
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE upload_chunk (
    upload_id uuid NOT NULL REFERENCES upload ON DELETE CASCADE,
    number    integer NOT NULL,
    data      bytea NOT NULL,
    PRIMARY KEY (upload_id, number)
);

-- Of codes into a list, or of recipients into a group.
--     queued → running → finished | failed (it cannot be read);   queued, running → cancelled, by a person
-- A chunk of lines is one transaction: what it brought, why the others were not taken, counters and `position`. A
-- worker that dies leaves it running; the next one reads from the start and takes what comes after `position`, if what
-- comes before still has the same `digest`.
CREATE TABLE import_job (
    id          uuid PRIMARY KEY,
    list_id     bigint REFERENCES coupon_list ON DELETE CASCADE,
    group_id    bigint REFERENCES recipient_group ON DELETE CASCADE,
    mode        text NOT NULL CHECK (mode IN ('add', 'replace', 'delete')),
    source      text NOT NULL,
    format      jsonb NOT NULL DEFAULT '{}',
    columns     text[],  -- of a group's file, the addresses first, as soon as its header was seen
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'finished', 'failed', 'cancelled')),
    reason      text,
    lines       bigint NOT NULL DEFAULT 0 CHECK (lines >= 0),
    blank       bigint NOT NULL DEFAULT 0 CHECK (blank >= 0),
    added       bigint NOT NULL DEFAULT 0 CHECK (added >= 0),
    removed     bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),
    rejected    bigint NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    existing    bigint NOT NULL DEFAULT 0 CHECK (existing >= 0),  -- codes that a replaced list keeps; recipients that get new attributes
    kept_reserved bigint NOT NULL DEFAULT 0 CHECK (kept_reserved >= 0),  -- not removed: a sendout may need them
    kept_assigned  bigint NOT NULL DEFAULT 0 CHECK (kept_assigned >= 0),       -- not removed: they are recipients'
    position    bigint NOT NULL DEFAULT 0 CHECK (position >= 0),  -- bytes of text, unpacked, that are committed
    digest      bytea CHECK (octet_length(digest) = 32),          -- sha256 of these
    read_bytes  bigint NOT NULL DEFAULT 0,  -- of the source, read for them
    total_bytes bigint,
    retries     integer NOT NULL DEFAULT 0,  -- in a row, since the last chunk that was committed
    due_at      timestamptz NOT NULL DEFAULT now(),     -- not to be tried again before
    claimed_at  timestamptz,                            -- with the next three what its rate is read from
    claimed_bytes bigint NOT NULL DEFAULT 0,
    claimed_lines bigint NOT NULL DEFAULT 0,
    progressed_at timestamptz,
    lease_token uuid,
    lease_owner text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CONSTRAINT finished_at_when_ended CHECK ((finished_at IS NOT NULL) = (state IN ('finished', 'failed', 'cancelled'))),
    CONSTRAINT list_or_group CHECK ((list_id IS NULL) <> (group_id IS NULL)),
    CONSTRAINT position_has_digest CHECK (position = 0 OR digest IS NOT NULL),
    CONSTRAINT lines_add_up
        CHECK (lines = blank + added + existing + rejected + CASE WHEN mode = 'delete' THEN removed ELSE 0 END)
) WITH (fillfactor = 50);
CREATE INDEX import_job_unfinished ON import_job (created_at) WHERE finished_at IS NULL;
CREATE INDEX import_job_list ON import_job (list_id, created_at);
CREATE INDEX import_job_group ON import_job (group_id, created_at);

-- The codes of a whole chunk, by their sha256, that an import has put into a list: as long as nothing was `removed` from
-- the list since, it has them all, and whoever brings the same chunk again need not look each of them up.
CREATE TABLE imported_chunk (
    list_id   bigint NOT NULL REFERENCES coupon_list ON DELETE CASCADE,
    digest    bytea NOT NULL CHECK (octet_length(digest) = 32),
    import_id uuid NOT NULL,
    removed   bigint NOT NULL,  -- coupon_list.removed at that time
    PRIMARY KEY (list_id, digest)
);

-- What happened to it, in words without codes.
CREATE TABLE import_event (
    import_id uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    number    bigint GENERATED ALWAYS AS IDENTITY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    text      text NOT NULL,
    PRIMARY KEY (import_id, number)
);

-- Every line that was not taken, with its reason: to be mended and imported again. Ten thousand of them a row: a
-- million lines that are known already are noted in half a second instead of three.
CREATE TABLE import_rejection (
    import_id  uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    first_line bigint NOT NULL,
    lines      bigint[] NOT NULL,
    texts      text[] NOT NULL,  -- codes; where the import has `columns`, rows as JSON objects
    reasons    text[] NOT NULL,
    PRIMARY KEY (import_id, first_line),
    CONSTRAINT each_line_has_a_reason
        CHECK (first_line = ANY (lines) AND cardinality(lines) = ALL (ARRAY[cardinality(texts), cardinality(reasons)]))
);
-- Not compressed: codes hardly get smaller, and a million lines would take three times as long.
ALTER TABLE import_rejection
    ALTER lines SET STORAGE EXTERNAL, ALTER texts SET STORAGE EXTERNAL, ALTER reasons SET STORAGE EXTERNAL;

-- queued → preparing → sending → finished
--              └→ interrupted: the lists cannot cover it, nothing is held, nobody was mailed → sending, by resume
--          sending ⇄ paused: a person, or the relay refuses our sender        any of these → cancelled, by a person
--          preparing → failed: it can never be sent (no recipients, an attribute that is missing)
CREATE TABLE sendout (
    id          uuid PRIMARY KEY,
    message_id  bigint NOT NULL REFERENCES message,
    group_id    bigint REFERENCES recipient_group,  -- NULL: the recipients came with the command
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN
                ('queued', 'preparing', 'interrupted', 'sending', 'paused', 'finished', 'cancelled', 'failed')),
    reason      text,  -- why it is interrupted, paused or failed
    waiting_reason text,  -- why a sending one makes no progress now
    start_at    timestamptz,  -- not to be mailed before
    per_hour    double precision CHECK (per_hour > 0),  -- most mails an hour; NULL: as fast as it goes
    over_minutes integer CHECK (over_minutes > 0),      -- asked instead: to be spread over so long
    auto_resume boolean NOT NULL DEFAULT false, -- an interrupted one, as soon as its lists have enough
    next_batch_at timestamptz NOT NULL DEFAULT now(),     -- no batch is claimed before: it has to start, or keeps its pace
    recipients  integer CHECK (recipients >= 0),  -- NULL until the snapshot is taken
    lease_token uuid,
    lease_owner text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,  -- of a cancelled one: when its last batch is closed
    CONSTRAINT sending_has_recipients
        CHECK (state NOT IN ('sending', 'interrupted', 'finished') OR coalesce(recipients, 0) > 0),
    CONSTRAINT interrupted_never_started CHECK (state <> 'interrupted' OR started_at IS NULL),
    CONSTRAINT spread_has_a_pace CHECK (over_minutes IS NULL OR recipients IS NULL OR per_hour IS NOT NULL)
) WITH (fillfactor = 50);
CREATE INDEX sendout_unfinished ON sendout (created_at) WHERE finished_at IS NULL;
CREATE INDEX sendout_created ON sendout (created_at);

-- What a sendout needs of each list. Codes of all its lists are reserved, or of none.
CREATE TABLE sendout_list (
    sendout_id       uuid NOT NULL REFERENCES sendout,
    list_id          bigint NOT NULL REFERENCES coupon_list,
    shortage         text NOT NULL DEFAULT 'pause' CHECK (shortage IN ('pause', 'text')),
    alternative_text text NOT NULL DEFAULT '',                   -- both as the list said at admission
    needed           bigint NOT NULL CHECK (needed >= 0),        -- one for each recipient
    reserved         bigint NOT NULL DEFAULT 0 CHECK (reserved >= 0),  -- not yet assigned
    assigned         bigint NOT NULL DEFAULT 0 CHECK (assigned >= 0),  -- to a delivery that is not yet sent
    sent             bigint NOT NULL DEFAULT 0 CHECK (sent >= 0),
    missing          bigint NOT NULL DEFAULT 0 CHECK (missing BETWEEN 0 AND needed),  -- at the last admission
    PRIMARY KEY (sendout_id, list_id),
    CONSTRAINT codes_within_need CHECK (reserved + assigned + sent <= needed)
) WITH (fillfactor = 50);
CREATE INDEX sendout_list_list ON sendout_list (list_id);

-- The unit that workers claim. Progress is the sum over these few rows, never a count over deliveries.
-- `in_flight` is the intent, committed before a mail is handed over: the numbers of deliveries that may have been mailed
-- and whose outcome is not recorded yet. What a dead worker leaves there is uncertain. One small row for a window of
-- mails: with the intent as a state of each delivery, every mail cost a second update (docs/decisions/0005).
-- `closed` stands in the index, not `remaining`, which changes with each flush: its updates are HOT.
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
    in_flight        integer[] NOT NULL DEFAULT '{}',
    last_flush     uuid,         -- so that a flush whose COMMIT got no answer is known to be done
    flushed_at     timestamptz,
    claimed_at     timestamptz,  -- with `claimed_remaining` what the rate is read from
    claimed_remaining   integer,
    PRIMARY KEY (sendout_id, number),
    CONSTRAINT batch_adds_up
        CHECK (remaining + sent + refused + uncertain + cancelled = last_delivery - first_delivery + 1),
    CONSTRAINT closed_when_none_remain CHECK (closed = (remaining = 0)),
    CONSTRAINT in_flight_is_remaining CHECK (cardinality(in_flight) <= remaining),
    CONSTRAINT in_flight_under_a_lease CHECK (in_flight = '{}' OR lease_token IS NOT NULL)
) WITH (fillfactor = 50);
-- What is due last is claimed first: a mail that was deferred need not wait until the whole sendout was tried once.
CREATE INDEX delivery_batch_due ON delivery_batch (sendout_id, due_at DESC, number) WHERE NOT closed;
CREATE INDEX delivery_batch_uncertain ON delivery_batch (sendout_id) WHERE uncertain > 0;

-- One recipient's mail.
--     pending → sent | refused | uncertain          pending, deferred → cancelled
--        └→ deferred (due again later) → …          uncertain → pending | sent, as a person or the setting says;
--                                                   never refused or cancelled after that: the code stays
-- While it is being handed over its number stands in its batch's `in_flight`. No index mentions the state, so its updates
-- are HOT: half the WAL.
CREATE TABLE delivery (
    sendout_id     uuid NOT NULL,
    number         integer NOT NULL CHECK (number > 0),
    address_key    text NOT NULL,
    address        text NOT NULL CHECK (address !~ '[[:cntrl:][:space:],<>]'),
    attributes     jsonb NOT NULL DEFAULT '{}',
    state          text NOT NULL DEFAULT 'pending' CHECK (state IN
                   ('pending', 'deferred', 'sent', 'refused', 'uncertain', 'cancelled')),
    attempts       integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at         timestamptz,  -- of a deferred one
    reply          text,         -- the relay's last answer, or why there is none
    changed_at     timestamptz,
    deferred_since timestamptz,  -- its first deferral: it is given up when this is too long ago
    was_uncertain  boolean NOT NULL DEFAULT false,
    never_resend   boolean NOT NULL DEFAULT false,  -- set by the restore guard: it may have been sent with another code
    PRIMARY KEY (sendout_id, number),
    -- `who --email` looks here. Not the other way round: of a sendout that came after the last ANALYZE the planner
    -- expects one row, and reads all its deliveries by whatever index begins with its id (310 mails/s instead of 8,000).
    CONSTRAINT one_mail_per_address UNIQUE (address_key, sendout_id),
    CONSTRAINT deferred_is_due CHECK (state <> 'deferred' OR (due_at IS NOT NULL AND deferred_since IS NOT NULL)),
    -- One of its mails may have arrived: whatever a later attempt brings, its codes are nobody else's.
    CONSTRAINT uncertain_keeps_its_code CHECK (NOT was_uncertain OR state NOT IN ('refused', 'cancelled')),
    CONSTRAINT never_resent CHECK (NOT never_resend OR state IN ('uncertain', 'sent'))
) WITH (fillfactor = 60);

-- What became of an attempt that was not the last one: with `delivery.reply`, every answer that a relay ever gave.
CREATE TABLE delivery_attempt (
    sendout_id uuid NOT NULL,
    number     integer NOT NULL,
    attempt    integer NOT NULL CHECK (attempt > 0),
    outcome    text NOT NULL CHECK (outcome IN ('deferred', 'uncertain')),
    reply      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sendout_id, number, attempt)
);

-- When the next mail of all workers together may leave, if there is a limit: one row.
CREATE TABLE rate_limit (
    name         text PRIMARY KEY CHECK (name = 'mail'),
    next_mail_at timestamptz NOT NULL
);

-- Data that went back in time do not know what was sent since. Workers send only while the database is the one whose
-- data were accepted: by the migration that makes this table, later by a person (docs/decisions/0011). One row is in
-- force; the others are history. It has no key: data that are restored into the database must be able to bring their
-- row beside its own, or they would not be found. A migration that rewrote it would look like a restore.
CREATE TABLE restore_guard (
    number      integer NOT NULL CHECK (number > 0),
    accepted_at timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,       -- when the next one was accepted
    cluster     bigint NOT NULL,   -- the server's identifier: another one is another server, or a newer version's
    timeline    integer NOT NULL,  -- a replica's promotion and a recovery to a point in time begin a new one
    database    oid NOT NULL,      -- a copy by CREATE DATABASE … TEMPLATE has another one
    written_by  xid NOT NULL DEFAULT pg_current_xact_id()::xid  -- what a restored dump has written has another xmin
);

-- What the database is now; during recovery it has no timeline of its own. Not from pg_control_checkpoint(), which
-- knows of a promotion only after the next checkpoint.
CREATE FUNCTION this_database(OUT cluster bigint, OUT timeline integer, OUT database oid) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT c.system_identifier, d.oid,
           CASE WHEN NOT pg_is_in_recovery()
                THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END
    INTO cluster, database, timeline
    FROM pg_control_system() c CROSS JOIN pg_database d WHERE d.datname = current_database();
END $$;

-- Whether anything may be sent. Part of every statement that takes or uses a batch: once a statement, 0.02 ms; in SQL
-- instead of PL/pgSQL, which keeps its plans, 0.18 ms.
CREATE FUNCTION restore_guard_accepted() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT bool_and(g.written_by = g.xmin AND g.cluster = n.cluster AND g.timeline = n.timeline
                        AND g.database = n.database)
        FROM restore_guard g CROSS JOIN this_database() n WHERE g.ended_at IS NULL), false);
END $$;

INSERT INTO restore_guard (number, cluster, timeline, database) SELECT 1, cluster, timeline, database FROM this_database();
