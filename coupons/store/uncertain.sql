-- listed: uncertain mails of a sendout after number $2, at most $3
-- OFFSET 0 keeps the planner from a join order that reads all deliveries of the sendout.
SELECT d.number, d.address, d.attempts, d.reply, d.changed_at
FROM delivery_batch b CROSS JOIN LATERAL (
    SELECT number, address, attempts, reply, changed_at FROM delivery
    WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery AND state = 'uncertain'
    OFFSET 0
) d
WHERE b.sendout_id = $1 AND b.uncertain > 0 AND d.number > $2
ORDER BY d.number LIMIT $3;

-- chosen: uncertain mails with fewer than $3 attempts to the address keys $2, or to all if $2 is NULL
-- $4 is whether the mails will be resent; then mails marked `never_resend` are omitted.
SELECT d.number
FROM delivery_batch b CROSS JOIN LATERAL (
    SELECT number, address_key, attempts, never_resend FROM delivery
    WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery AND state = 'uncertain'
    OFFSET 0
) d
WHERE b.sendout_id = $1 AND b.uncertain > 0 AND ($2::text[] IS NULL OR d.address_key = ANY ($2)) AND d.attempts < $3
  AND NOT ($4 AND d.never_resend)
ORDER BY d.number;

-- lock: lock the sendout's row until the transaction ends
SELECT state, finished_at FROM sendout WHERE id = $1 FOR UPDATE;

-- lock_batches: lock the batches with uncertain mails, before the sendout is locked (schema.sql has the order)
SELECT number FROM delivery_batch WHERE sendout_id = $1 AND uncertain > 0 ORDER BY number FOR NO KEY UPDATE;

-- resend: make the mails $2 pending again, with the same codes and the same Message-ID
WITH moved AS (
    UPDATE delivery SET state = 'pending', changed_at = now()
    WHERE sendout_id = $1 AND number = ANY ($2::integer[]) AND state = 'uncertain' RETURNING number
), counted AS (
    SELECT b.number AS batch, count(*)::integer AS amount
    FROM moved m JOIN delivery_batch b ON b.sendout_id = $1 AND m.number BETWEEN b.first_delivery AND b.last_delivery
    WHERE b.uncertain > 0 GROUP BY b.number
), batches AS (
    UPDATE delivery_batch b
    SET remaining = b.remaining + c.amount, uncertain = b.uncertain - c.amount, closed = false, due_at = now()
    FROM counted c WHERE b.sendout_id = $1 AND b.number = c.batch
)
SELECT count(*) FROM moved;

-- reopen: make a finished sendout sending again, because it has pending mails
UPDATE sendout SET state = 'sending', finished_at = NULL WHERE id = $1 AND state = 'finished';

-- accept: count the mails $2 as sent
WITH moved AS (
    UPDATE delivery SET state = 'sent', changed_at = now()
    WHERE sendout_id = $1 AND number = ANY ($2::integer[]) AND state = 'uncertain' RETURNING number
), counted AS (
    SELECT b.number AS batch, count(*)::integer AS amount
    FROM moved m JOIN delivery_batch b ON b.sendout_id = $1 AND m.number BETWEEN b.first_delivery AND b.last_delivery
    WHERE b.uncertain > 0 GROUP BY b.number
), batches AS (
    UPDATE delivery_batch b SET sent = b.sent + c.amount, uncertain = b.uncertain - c.amount
    FROM counted c WHERE b.sendout_id = $1 AND b.number = c.batch
), codes AS (
    SELECT list_id, count(*) AS amount FROM coupon
    WHERE list_id IN (SELECT list_id FROM sendout_list WHERE sendout_id = $1)
      AND sendout_id = $1 AND delivery_number IN (SELECT number FROM moved)
    GROUP BY list_id
), lists AS (
    UPDATE sendout_list sl SET assigned = sl.assigned - codes.amount, sent = sl.sent + codes.amount FROM codes
    WHERE sl.sendout_id = $1 AND sl.list_id = codes.list_id
)
SELECT count(*) FROM moved;

-- lock_sendout_lists: lock the sendout's counters in the order of their lists, before the counters change
SELECT list_id FROM sendout_list WHERE sendout_id = $1 ORDER BY list_id FOR UPDATE;

-- sendouts: sendouts with uncertain mails; cancelled ones only if the mails will be accepted ($1)
SELECT DISTINCT s.id FROM delivery_batch b JOIN sendout s ON s.id = b.sendout_id
WHERE b.uncertain > 0 AND (s.state <> 'cancelled' OR $1 = 'accept');
