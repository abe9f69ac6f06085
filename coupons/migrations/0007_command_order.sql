-- Sendouts and resumes wait for imports (docs/decisions/0014). Stop the workers first: those of the version before would
-- prepare a sendout that waits.

ALTER TABLE sendout
    ADD COLUMN group_name text,
    ADD COLUMN not_resumed text;

CREATE TABLE sendout_wait (
    sendout_id   uuid PRIMARY KEY REFERENCES sendout,
    command_id   uuid NOT NULL,
    body         bytea NOT NULL,
    after        uuid[] NOT NULL,
    unfinished   uuid[] NOT NULL,
    arrive_until timestamptz NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT waits_for_an_import CHECK (after <> '{}' OR unfinished <> '{}')
);

CREATE TABLE dead_letter (
    command_id uuid PRIMARY KEY REFERENCES command,
    body       bytea NOT NULL,
    reason     text NOT NULL
);

-- The version before left the batches of some failed sendouts open, and their deliveries pending: if a list was archived
-- after the recipients had been copied. Workers now close these batches, and then end the sendout.
UPDATE sendout SET finished_at = NULL
WHERE state = 'failed' AND EXISTS (SELECT FROM delivery_batch b WHERE b.sendout_id = sendout.id AND NOT b.closed);
