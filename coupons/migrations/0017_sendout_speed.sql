-- A batch counts its deferred deliveries and its outcomes. The outcomes of a sendout at several times give its rate; that
-- was computed from `claimed_remaining` before, which a batch with deferred mails overwrote.
ALTER TABLE delivery_batch
    DROP COLUMN claimed_remaining,
    ADD COLUMN deferred integer NOT NULL DEFAULT 0 CHECK (deferred >= 0),
    ADD COLUMN next_attempt_at timestamptz,
    ADD COLUMN outcomes bigint NOT NULL DEFAULT 0,
    ADD COLUMN first_outcomes bigint NOT NULL DEFAULT 0,
    ADD COLUMN progressed_at timestamptz;

-- Only open batches have deferred deliveries. Those of the first version have no `claimed_at`. OFFSET 0 keeps the planner from reading closed ones.
UPDATE delivery_batch b SET deferred = d.deferred, next_attempt_at = d.due_at
FROM (
    SELECT o.sendout_id, o.number, d.*
    FROM delivery_batch o CROSS JOIN LATERAL (
        SELECT count(*) AS deferred, min(due_at) AS due_at FROM delivery
        WHERE sendout_id = o.sendout_id AND number BETWEEN o.first_delivery AND o.last_delivery AND state = 'deferred'
        OFFSET 0
    ) d
    WHERE NOT o.closed
) d
WHERE b.sendout_id = d.sendout_id AND b.number = d.number AND d.deferred > 0;

ALTER TABLE delivery_batch
    ADD CONSTRAINT deferred_is_remaining CHECK (deferred <= remaining),
    ADD CONSTRAINT deferred_has_a_time CHECK ((deferred > 0) = (next_attempt_at IS NOT NULL));

CREATE TABLE sendout_speed (
    sendout_id     uuid PRIMARY KEY REFERENCES sendout,
    times          timestamptz[] NOT NULL,
    outcomes       bigint[] NOT NULL,
    first_outcomes bigint[] NOT NULL,
    CONSTRAINT each_sample_is_whole
        CHECK (cardinality(times) = ALL (ARRAY[cardinality(outcomes), cardinality(first_outcomes)]))
) WITH (fillfactor = 50);
