-- schema.sql says why.
CREATE TABLE command (
    id          uuid PRIMARY KEY,
    type        text NOT NULL CHECK (type IN ('import', 'sendout', 'resume')),
    digest      bytea NOT NULL,
    refused     text,
    received_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE coupon_list (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name             text NOT NULL UNIQUE
                     CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    description      text NOT NULL DEFAULT '' CHECK (char_length(description) <= 200),
    shortage         text NOT NULL DEFAULT 'pause' CHECK (shortage IN ('pause', 'text')),
    alternative_text text NOT NULL DEFAULT '' CHECK (char_length(alternative_text) <= 500),
    preview_text     text NOT NULL CHECK (char_length(preview_text) BETWEEN 1 AND 200),
    total            bigint NOT NULL DEFAULT 0 CHECK (total >= 0),
    available        bigint NOT NULL DEFAULT 0 CHECK (available BETWEEN 0 AND total),
    archived_at      timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT text_needs_alternative CHECK (shortage <> 'text' OR alternative_text <> '')
) WITH (fillfactor = 50);

CREATE FUNCTION refuse_rename() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'list % is never renamed', OLD.name USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER never_renamed BEFORE UPDATE OF name ON coupon_list
    FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION refuse_rename();

CREATE TABLE coupon (
    id              bigint GENERATED ALWAYS AS IDENTITY,
    list_id         bigint NOT NULL,
    code            text NOT NULL CHECK (code <> '' AND char_length(code) <= 200),
    import_id       uuid NOT NULL,
    sendout_id      uuid,
    delivery_number integer,
    PRIMARY KEY (list_id, code),
    CONSTRAINT whole_owner CHECK ((sendout_id IS NULL) = (delivery_number IS NULL))
);
CREATE UNIQUE INDEX coupon_owner ON coupon (list_id, sendout_id, delivery_number) WHERE sendout_id IS NOT NULL;
CREATE INDEX coupon_free ON coupon (list_id, id) WHERE sendout_id IS NULL;

CREATE TABLE recipient_group (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL UNIQUE
               CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    attributes text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE recipient (
    group_id    bigint NOT NULL,
    address_key text NOT NULL CHECK (char_length(address_key) BETWEEN 3 AND 254),
    address     text NOT NULL CHECK (address !~ '[[:cntrl:][:space:],<>]'),
    attributes  jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    PRIMARY KEY (group_id, address_key)
);

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
    attributes text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, version),
    CHECK (text IS NOT NULL OR html IS NOT NULL)
);

CREATE TABLE message_list (
    message_id bigint NOT NULL REFERENCES message,
    list_id    bigint NOT NULL REFERENCES coupon_list,
    PRIMARY KEY (message_id, list_id)
);
CREATE INDEX message_list_list ON message_list (list_id);

CREATE TABLE upload (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    bytes      bigint,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE upload_chunk (
    upload_id uuid NOT NULL REFERENCES upload ON DELETE CASCADE,
    number    integer NOT NULL,
    data      bytea NOT NULL,
    PRIMARY KEY (upload_id, number)
);

CREATE TABLE import_job (
    id          uuid PRIMARY KEY,
    list_id     bigint NOT NULL REFERENCES coupon_list ON DELETE CASCADE,
    mode        text NOT NULL CHECK (mode IN ('add', 'replace', 'delete')),
    source      text NOT NULL,
    format      jsonb NOT NULL DEFAULT '{}',
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'finished', 'failed')),
    reason      text,
    lines       bigint NOT NULL DEFAULT 0 CHECK (lines >= 0),
    blank       bigint NOT NULL DEFAULT 0 CHECK (blank >= 0),
    added       bigint NOT NULL DEFAULT 0 CHECK (added >= 0),
    removed     bigint NOT NULL DEFAULT 0 CHECK (removed >= 0),
    rejected    bigint NOT NULL DEFAULT 0 CHECK (rejected >= 0),
    kept        bigint NOT NULL DEFAULT 0 CHECK (kept >= 0),
    bytes       bigint NOT NULL DEFAULT 0,
    total_bytes bigint,
    lease_token uuid,
    lease_owner text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    CHECK ((finished_at IS NOT NULL) = (state IN ('finished', 'failed'))),
    CONSTRAINT every_line_explained
        CHECK (lines = blank + added + kept + rejected + CASE WHEN mode = 'delete' THEN removed ELSE 0 END)
) WITH (fillfactor = 50);
CREATE INDEX import_job_open ON import_job (created_at) WHERE finished_at IS NULL;

CREATE TABLE import_rejection (
    import_id uuid NOT NULL REFERENCES import_job ON DELETE CASCADE,
    line      bigint NOT NULL,
    value     text NOT NULL,
    reason    text NOT NULL,
    PRIMARY KEY (import_id, line)
);

CREATE TABLE sendout (
    id          uuid PRIMARY KEY,
    message_id  bigint NOT NULL REFERENCES message,
    group_id    bigint REFERENCES recipient_group,
    state       text NOT NULL DEFAULT 'queued' CHECK (state IN
                ('queued', 'preparing', 'interrupted', 'sending', 'paused', 'finished', 'cancelled', 'failed')),
    reason      text,
    waiting     text,
    recipients  integer CHECK (recipients >= 0),
    lease_token uuid,
    lease_owner text,
    lease_until timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    started_at  timestamptz,
    finished_at timestamptz,
    CONSTRAINT sending_has_recipients CHECK (state NOT IN ('sending', 'interrupted', 'finished') OR recipients > 0),
    CONSTRAINT interrupted_never_started CHECK (state <> 'interrupted' OR started_at IS NULL)
) WITH (fillfactor = 50);
CREATE INDEX sendout_open ON sendout (created_at) WHERE finished_at IS NULL;
CREATE INDEX sendout_created ON sendout (created_at);

CREATE TABLE sendout_list (
    sendout_id       uuid NOT NULL REFERENCES sendout,
    list_id          bigint NOT NULL REFERENCES coupon_list,
    shortage         text NOT NULL DEFAULT 'pause' CHECK (shortage IN ('pause', 'text')),
    alternative_text text NOT NULL DEFAULT '',
    needed           bigint NOT NULL CHECK (needed >= 0),
    promised         bigint NOT NULL DEFAULT 0,
    bound            bigint NOT NULL DEFAULT 0 CHECK (bound >= 0),
    sent             bigint NOT NULL DEFAULT 0 CHECK (sent >= 0),
    missing          bigint NOT NULL DEFAULT 0 CHECK (missing BETWEEN 0 AND needed),
    PRIMARY KEY (sendout_id, list_id),
    CONSTRAINT promise_within_need CHECK (promised BETWEEN 0 AND needed),
    CONSTRAINT bound_within_promise CHECK (bound <= promised),
    CONSTRAINT sent_was_bound CHECK (sent <= bound)
) WITH (fillfactor = 50);
CREATE INDEX sendout_list_list ON sendout_list (list_id);

CREATE TABLE delivery_batch (
    sendout_id     uuid NOT NULL REFERENCES sendout,
    number         integer NOT NULL,
    first_delivery integer NOT NULL,
    last_delivery  integer NOT NULL,
    open           integer NOT NULL CHECK (open >= 0),
    sent           integer NOT NULL DEFAULT 0 CHECK (sent >= 0),
    refused        integer NOT NULL DEFAULT 0 CHECK (refused >= 0),
    uncertain      integer NOT NULL DEFAULT 0 CHECK (uncertain >= 0),
    cancelled      integer NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    due_at         timestamptz NOT NULL DEFAULT now(),
    lease_token    uuid,
    lease_owner    text,
    lease_until    timestamptz,
    last_flush     uuid,
    PRIMARY KEY (sendout_id, number),
    CONSTRAINT batch_adds_up
        CHECK (open + sent + refused + uncertain + cancelled = last_delivery - first_delivery + 1)
) WITH (fillfactor = 50);
CREATE INDEX delivery_batch_due ON delivery_batch (due_at) WHERE open > 0;

CREATE TABLE delivery (
    sendout_id  uuid NOT NULL,
    number      integer NOT NULL CHECK (number > 0),
    address_key text NOT NULL,
    address     text NOT NULL CHECK (address !~ '[[:cntrl:][:space:],<>]'),
    attributes  jsonb NOT NULL DEFAULT '{}',
    state       text NOT NULL DEFAULT 'pending' CHECK (state IN
                ('pending', 'sending', 'deferred', 'sent', 'refused', 'uncertain', 'cancelled')),
    attempts    integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at      timestamptz,
    reply       text,
    changed_at  timestamptz,
    PRIMARY KEY (sendout_id, number),
    CONSTRAINT one_mail_per_address UNIQUE (sendout_id, address_key),
    CONSTRAINT deferred_is_due CHECK (state <> 'deferred' OR due_at IS NOT NULL)
) WITH (fillfactor = 60);
