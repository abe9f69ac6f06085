-- listed: mails that may have been sent or not, after $2; $3 of them
SELECT d.number, d.address, d.attempts, d.reply, d.changed_at
FROM delivery_batch b JOIN delivery d ON d.sendout_id = b.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
WHERE b.sendout_id = $1 AND b.uncertain > 0 AND d.state = 'uncertain' AND d.number > $2
ORDER BY d.number LIMIT $3;

-- lock: the sendout's row, until the transaction ends
SELECT state, finished_at FROM sendout WHERE id = $1 FOR UPDATE;

-- lock_batches: those with uncertain mails, before the sendout as everywhere
SELECT number FROM delivery_batch WHERE sendout_id = $1 AND uncertain > 0 ORDER BY number FOR NO KEY UPDATE;

-- resend: they are to be mailed again, with the same codes and the same Message-ID; $2 address keys, or NULL for all;
-- tried fewer than $3 times
WITH moved AS (
    UPDATE delivery d SET state = 'pending', changed_at = now()
    FROM delivery_batch b
    WHERE b.sendout_id = $1 AND b.uncertain > 0 AND d.sendout_id = b.sendout_id
      AND d.number BETWEEN b.first_delivery AND b.last_delivery AND d.state = 'uncertain'
      AND ($2::text[] IS NULL OR d.address_key = ANY ($2)) AND d.attempts < $3
    RETURNING b.number AS batch
), counted AS (
    SELECT batch, count(*)::integer AS amount FROM moved GROUP BY batch
), batches AS (
    UPDATE delivery_batch b
    SET open = b.open + c.amount, uncertain = b.uncertain - c.amount, closed = false, due_at = least(b.due_at, now())
    FROM counted c WHERE b.sendout_id = $1 AND b.number = c.batch
)
SELECT coalesce(sum(amount), 0) FROM counted;

-- reopen: a finished sendout has something to send again
UPDATE sendout SET state = 'sending', finished_at = NULL WHERE id = $1 AND state = 'finished';

-- accept: they count as sent; $2 as above
WITH moved AS (
    UPDATE delivery d SET state = 'sent', changed_at = now()
    FROM delivery_batch b
    WHERE b.sendout_id = $1 AND b.uncertain > 0 AND d.sendout_id = b.sendout_id
      AND d.number BETWEEN b.first_delivery AND b.last_delivery AND d.state = 'uncertain'
      AND ($2::text[] IS NULL OR d.address_key = ANY ($2))
    RETURNING d.number, b.number AS batch
), counted AS (
    SELECT batch, count(*)::integer AS amount FROM moved GROUP BY batch
), batches AS (
    UPDATE delivery_batch b SET sent = b.sent + c.amount, uncertain = b.uncertain - c.amount
    FROM counted c WHERE b.sendout_id = $1 AND b.number = c.batch
), codes AS (
    SELECT c.list_id, count(*) AS amount FROM moved m JOIN sendout_list sl ON sl.sendout_id = $1
    JOIN coupon c ON c.list_id = sl.list_id AND c.sendout_id = $1 AND c.delivery_number = m.number
    GROUP BY c.list_id
), lists AS (
    UPDATE sendout_list sl SET sent = sl.sent + codes.amount FROM codes
    WHERE sl.sendout_id = $1 AND sl.list_id = codes.list_id
)
SELECT coalesce(sum(amount), 0) FROM counted;

-- lock_promises: in the order of the lists, before their counters move
SELECT list_id FROM sendout_list WHERE sendout_id = $1 ORDER BY list_id FOR UPDATE;

-- sendouts: that have uncertain mails and are not cancelled
SELECT DISTINCT s.id FROM delivery_batch b JOIN sendout s ON s.id = b.sendout_id
WHERE b.uncertain > 0 AND s.state <> 'cancelled';
