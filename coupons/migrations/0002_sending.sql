-- The intent to hand a mail over moves from each delivery to its batch; sendouts get a start and a pace; every answer
-- of a relay is kept. Stop the workers first: what an old one has in hand would not be recorded.

ALTER TABLE sendout
    ADD COLUMN start_at timestamptz,
    ADD COLUMN per_hour double precision CHECK (per_hour > 0),
    ADD COLUMN over_minutes integer CHECK (over_minutes > 0),
    ADD COLUMN next_at timestamptz NOT NULL DEFAULT now(),
    ADD CONSTRAINT spread_has_a_pace CHECK (over_minutes IS NULL OR recipients IS NULL OR per_hour IS NOT NULL);

ALTER TABLE delivery_batch
    ADD COLUMN closed boolean NOT NULL DEFAULT false,
    ADD COLUMN in_hand integer[] NOT NULL DEFAULT '{}',
    ADD COLUMN flushed_at timestamptz,
    ADD COLUMN claimed_at timestamptz,
    ADD COLUMN claimed_open integer;

UPDATE delivery_batch b SET closed = (open = 0), in_hand = ARRAY(
    SELECT d.number FROM delivery d
    WHERE d.sendout_id = b.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
      AND d.state = 'sending' AND b.open > 0);
UPDATE delivery_batch SET lease_token = coalesce(lease_token, gen_random_uuid()), lease_until = coalesce(lease_until, now())
WHERE in_hand <> '{}';
UPDATE delivery SET state = 'pending', attempts = greatest(attempts - 1, 0) WHERE state = 'sending';

ALTER TABLE delivery_batch
    ADD CONSTRAINT closed_when_nothing_is_open CHECK (closed = (open = 0)),
    ADD CONSTRAINT in_hand_is_open CHECK (cardinality(in_hand) <= open),
    ADD CONSTRAINT in_hand_under_a_lease CHECK (in_hand = '{}' OR lease_token IS NOT NULL);
DROP INDEX delivery_batch_due;
CREATE INDEX delivery_batch_due ON delivery_batch (sendout_id, due_at DESC, number) WHERE NOT closed;
CREATE INDEX delivery_batch_uncertain ON delivery_batch (sendout_id) WHERE uncertain > 0;

ALTER TABLE delivery
    ADD COLUMN deferred_since timestamptz,
    ADD COLUMN was_uncertain boolean NOT NULL DEFAULT false;
UPDATE delivery SET deferred_since = coalesce(changed_at, now()) WHERE state = 'deferred';
UPDATE delivery SET was_uncertain = true WHERE state = 'uncertain';
ALTER TABLE delivery
    DROP CONSTRAINT one_mail_per_address,
    ADD CONSTRAINT one_mail_per_address UNIQUE (address_key, sendout_id),
    DROP CONSTRAINT delivery_state_check,
    DROP CONSTRAINT deferred_is_due,
    ADD CONSTRAINT delivery_state_check CHECK (state IN
        ('pending', 'deferred', 'sent', 'refused', 'uncertain', 'cancelled')),
    ADD CONSTRAINT deferred_is_due CHECK (state <> 'deferred' OR (due_at IS NOT NULL AND deferred_since IS NOT NULL)),
    ADD CONSTRAINT uncertain_keeps_its_code CHECK (NOT was_uncertain OR state NOT IN ('refused', 'cancelled'));

CREATE TABLE delivery_attempt (
    sendout_id uuid NOT NULL,
    number     integer NOT NULL,
    attempt    integer NOT NULL CHECK (attempt > 0),
    outcome    text NOT NULL CHECK (outcome IN ('deferred', 'uncertain')),
    reply      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sendout_id, number, attempt)
);

CREATE TABLE throttle (
    name    text PRIMARY KEY CHECK (name = 'mail'),
    next_at timestamptz NOT NULL
);

ALTER TABLE message ADD COLUMN headers jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(headers) = 'object');

CREATE TABLE message_file (
    message_id   bigint NOT NULL REFERENCES message,
    name         text NOT NULL CHECK (name <> '' AND name !~ '[[:cntrl:]/]'),
    content_type text NOT NULL,
    inline       boolean NOT NULL,
    content      bytea NOT NULL,
    PRIMARY KEY (message_id, name)
);
