-- listed: uncertain mails of a sendout after number $2, at most $3
-- OFFSET 0 keeps the planner from another join order, which read all the sendout's deliveries.
SELECT d.number, d.address, d.attempts, d.reply, d.changed_at
FROM delivery_batch b CROSS JOIN LATERAL (
    SELECT number, address, attempts, reply, changed_at FROM delivery
    WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery AND state = 'uncertain'
    OFFSET 0
) d
WHERE b.sendout_id = $1 AND b.uncertain > 0 AND d.number > $2
ORDER BY d.number LIMIT $3;

-- chosen: uncertain mails to the address keys $2, or all for NULL, with fewer than $3 attempts; without those that are
-- never resent if they are to be resent ($4)
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

-- lock_batches: lock batches with uncertain mails; batches before the sendout, as everywhere
SELECT number FROM delivery_batch WHERE sendout_id = $1 AND uncertain > 0 ORDER BY number FOR NO KEY UPDATE;

-- resend: the mails $2 are pending again, with the same codes and the same Message-ID
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

-- reopen: a finished sendout has pending mails again
UPDATE sendout SET state = 'sending', finished_at = NULL WHERE id = $1 AND state = 'finished';

-- accept: the mails $2 count as sent
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

-- lock_sendout_lists: lock the sendout's counters in the order of the lists, before they change
SELECT list_id FROM sendout_list WHERE sendout_id = $1 ORDER BY list_id FOR UPDATE;

-- sendouts: sendouts with uncertain mails; for a resend ($1) without cancelled ones
SELECT DISTINCT s.id FROM delivery_batch b JOIN sendout s ON s.id = b.sendout_id
WHERE b.uncertain > 0 AND (s.state <> 'cancelled' OR $1 = 'accept');
