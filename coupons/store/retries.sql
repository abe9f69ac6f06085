-- find: the mails of a sendout to the address keys $2
-- `is_loaded`: a worker may have the mail's address in its memory, as its batch is leased or the mail is in flight.
SELECT d.number, d.address_key, d.address, d.attributes, d.state, d.was_uncertain, b.number AS batch,
       coalesce(b.lease_until > now(), false) OR d.number = ANY (b.in_flight) AS is_loaded
FROM delivery d
JOIN delivery_batch b ON b.sendout_id = $1 AND d.number BETWEEN b.first_delivery AND b.last_delivery
WHERE d.sendout_id = $1 AND d.address_key = ANY ($2::text[]);

-- lock_batches: lock batches with refused mails if $2, with deferred mails if $3, and the batches $4
-- They are locked before the sendout (schema.sql has the order).
SELECT number FROM delivery_batch
WHERE sendout_id = $1
  AND (($2 AND refused > 0) OR ($3 AND deferred > 0) OR number = ANY ($4::integer[]))
ORDER BY number FOR NO KEY UPDATE;

-- lock: lock the sendout's row until the transaction ends
SELECT state FROM sendout WHERE id = $1 FOR UPDATE;

-- count: the refused mails (if $3) and deferred mails (if $4) of the locked batches $2, and of the mails $5, by the
-- lists that they need
-- A mail in flight is omitted. OFFSET 0 keeps the planner from a join order that reads all deliveries of the sendout.
SELECT d.state, d.lists, count(*) AS mails
FROM delivery_batch b CROSS JOIN LATERAL (
    SELECT number, state, lists FROM delivery
    WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery
      AND state IN ('refused', 'deferred')
    OFFSET 0
) d
WHERE b.sendout_id = $1 AND b.number = ANY ($2::integer[]) AND d.number <> ALL (b.in_flight)
  AND (($3 AND d.state = 'refused') OR ($4 AND d.state = 'deferred') OR d.number = ANY ($5::integer[]))
GROUP BY d.state, d.lists;

-- lock_lists: lock the sendout's lists in the order of their ids; return the codes that they have
SELECT l.id AS list_id, l.name, sl.shortage, l.available, l.deleted_at
FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
WHERE sl.sendout_id = $1
ORDER BY l.id FOR NO KEY UPDATE OF l;

-- reserve: reserve the granted amounts $3 of the needed amounts $4
-- Mails without a code print the alternative text. Some of them may have been counted as missing before.
UPDATE sendout_list sl
SET reserved = sl.reserved + granted.amount,
    missing = least(sl.missing + granted.needed - granted.amount,
                    sl.needed - sl.reserved - sl.assigned - sl.sent - granted.amount)
FROM unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS granted (list_id, amount, needed)
WHERE sl.sendout_id = $1 AND sl.list_id = granted.list_id;

-- keep_addresses: store the present address with the earlier attempts of the mails $2, whose address will change
UPDATE delivery_attempt a SET address = d.address
FROM delivery d
WHERE a.sendout_id = $1 AND a.number = ANY ($2::integer[]) AND a.address IS NULL
  AND d.sendout_id = $1 AND d.number = a.number;

-- retry: make the mails that `count` counts pending, and log the refusals; the mails $5 get the addresses $6 with the keys $7
-- The locks on the batches keep each delivery in its place, so the mails are updated by ctid. A join by number would read
-- all deliveries of the sendout for each mail if there are no statistics (docs/decisions/0005).
WITH chosen AS MATERIALIZED (
    SELECT b.number AS batch, d.*
    FROM delivery_batch b CROSS JOIN LATERAL (
        SELECT number, ctid AS place, state, attempts, reply, changed_at, address FROM delivery
        WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery
          AND state IN ('refused', 'deferred')
        OFFSET 0
    ) d
    WHERE b.sendout_id = $1 AND b.number = ANY ($2::integer[]) AND d.number <> ALL (b.in_flight)
      AND (($3 AND d.state = 'refused') OR ($4 AND d.state = 'deferred') OR d.number = ANY ($5::integer[]))
), logged AS (
    INSERT INTO delivery_attempt (sendout_id, number, attempt, outcome, reply, at, address)
    SELECT $1, number, attempts, state, reply, changed_at, CASE WHEN number = ANY ($5::integer[]) THEN address END
    FROM chosen WHERE state = 'refused' AND attempts > 0
    ON CONFLICT DO NOTHING
), moved AS (
    UPDATE delivery
    SET state = 'pending', due_at = NULL, deferred_since = NULL, reply = NULL, changed_at = now(),
        address = coalesce(($6::text[])[array_position($5::integer[], number)], address),
        address_key = coalesce(($7::text[])[array_position($5::integer[], number)], address_key)
    WHERE ctid = ANY (ARRAY(SELECT place FROM chosen)) AND sendout_id = $1
), counted AS (
    SELECT batch, count(*) FILTER (WHERE state = 'refused')::integer AS refused,
           count(*) FILTER (WHERE state = 'deferred')::integer AS deferred
    FROM chosen GROUP BY batch
)
UPDATE delivery_batch b
SET remaining = b.remaining + c.refused, refused = b.refused - c.refused, closed = false, due_at = now(),
    deferred = greatest(b.deferred - c.deferred, 0), next_attempt_at = CASE WHEN b.deferred > c.deferred THEN b.next_attempt_at END
FROM counted c WHERE b.sendout_id = $1 AND b.number = c.batch;

-- reopen: make a finished sendout sending again, because it has pending mails
UPDATE sendout SET state = 'sending', finished_at = NULL WHERE id = $1 AND state = 'finished';
