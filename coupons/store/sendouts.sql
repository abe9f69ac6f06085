-- create: store a sendout with start $4, mails per hour $5, minutes to spread the mails over $6 and auto-resume $7
-- If the group does not exist yet, $3 is NULL and $8 is its name. $9 is the size of the first part, and $10 whether
-- recipients who got the message already are left out.
INSERT INTO sendout (id, message_id, group_id, start_at, per_hour, over_minutes, auto_resume, group_name, first_part,
                     skip_already_mailed, next_batch_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, greatest($4, now()));

-- claim: claim the oldest sendout to be prepared that does not wait for imports; find its group if the group did not
-- exist yet. Returns no row while the restore guard blocks sending
UPDATE sendout
SET state = 'preparing', lease_token = gen_random_uuid(), lease_owner = $1,
    lease_until = now() + make_interval(secs => $2),
    group_id = coalesce(group_id, (SELECT g.id FROM recipient_group g WHERE g.name = group_name))
WHERE id = (
    SELECT id FROM sendout
    WHERE database_accepted() AND state IN ('queued', 'preparing') AND (lease_until IS NULL OR lease_until < now())
      AND NOT EXISTS (SELECT FROM sendout_wait w WHERE w.sendout_id = sendout.id)
    ORDER BY created_at FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING id, lease_token, group_id, group_name, recipients, skip_already_mailed;

-- lacking: the number of recipients in a group that lack an attribute of the message
SELECT count(*) FROM recipient WHERE group_id = $1 AND NOT attributes ?& $2::text[];

-- lacking_unmailed: like lacking, without the recipients who got message $3 in the sendouts $4 and $5
SELECT count(*) FROM recipient
WHERE group_id = $1 AND NOT attributes ?& $2::text[]
  AND NOT EXISTS (SELECT FROM already_mailed($1, NULL, $3, $4, $5) AS mailed (key) WHERE mailed.key = address_key);

-- pace: set the rate limit that spreads $2 mails over the requested time; return the rate limit, or NULL
UPDATE sendout SET per_hour = coalesce(per_hour, $2::float8 * 60 / over_minutes) WHERE id = $1 RETURNING per_hour;

-- batches: divide the deliveries 1 … $2 into batches of $3; none has deliveries of the first part and of the rest
INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, remaining)
SELECT $1, row_number() OVER (ORDER BY first), first, last, last - first + 1
FROM (
    SELECT first, least(first + $3::integer - 1, part.last) AS last
    FROM (SELECT least(first_part, $2::integer) AS size FROM sendout WHERE id = $1) s
    CROSS JOIN LATERAL (VALUES (1, coalesce(s.size, $2)), (s.size + 1, $2)) AS part (first_of_part, last)
    CROSS JOIN LATERAL generate_series(part.first_of_part, part.last, $3) AS first
) batch;

-- taken: mark the snapshot as complete; returns no row if the lease was lost or the sendout was cancelled
-- $4 recipients were left out because they got the message already.
UPDATE sendout SET recipients = $2, rest_held = coalesce(first_part < $2, false), already_mailed = $4
WHERE id = $1 AND recipients IS NULL AND finished_at IS NULL
  AND ($3::uuid IS NULL OR (lease_token = $3 AND lease_until > now() AND state = 'preparing'))
RETURNING id;

-- lock: lock the sendout's row until the transaction ends
SELECT id, state, recipients, lease_token, finished_at, message_id, group_id FROM sendout WHERE id = $1 FOR UPDATE;

-- lock_lists: lock the sendout's lists in the order of their ids; return the codes that they have and it needs
SELECT l.id AS list_id, l.name, l.shortage, l.alternative_text, sl.needed, l.available, l.deleted_at
FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
WHERE sl.sendout_id = $1
ORDER BY l.id FOR NO KEY UPDATE OF l;

-- lacking_alternative: the number of mails that need a code of list $2 and lack one of the attributes $3
SELECT count(*) FROM delivery
WHERE sendout_id = $1 AND (lists IS NULL OR $2 = ANY (lists)) AND NOT attributes ?& $3::text[];

-- reserve: reserve the granted amounts for the sendout, and copy the shortage settings of the lists
UPDATE sendout_list sl
SET reserved = granted.amount, missing = sl.needed - granted.amount, lacking = 0,
    shortage = l.shortage, alternative_text = l.alternative_text
FROM unnest($2::bigint[], $3::bigint[]) AS granted (list_id, amount) JOIN coupon_list l ON l.id = granted.list_id
WHERE sl.sendout_id = $1 AND sl.list_id = granted.list_id;

-- note_missing: store how many codes each list lacks, also for lists with an alternative text
-- $3 recipients lack an attribute that the alternative texts of the lists $2 print.
UPDATE sendout_list sl
SET missing = greatest(0, sl.needed - l.available),
    lacking = coalesce(($3::integer[])[array_position($2::bigint[], l.id)], 0),
    shortage = l.shortage, alternative_text = l.alternative_text
FROM coupon_list l WHERE sl.sendout_id = $1 AND l.id = sl.list_id;

-- begin: start sending, at the start time if that is in the future
UPDATE sendout
SET state = 'sending', reason = NULL, not_resumed = NULL, started_at = greatest(now(), start_at),
    lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND state IN ('preparing', 'interrupted');

-- interrupt: interrupt the sendout for the reason $2
UPDATE sendout
SET state = 'interrupted', reason = $2, not_resumed = NULL, lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND state IN ('preparing', 'interrupted');

-- fail: end a sendout that can never be sent, for the reason $3; $2 is its lease, NULL if it is queued
-- If its recipients are copied, all its batches are open. Workers close them before the sendout has ended.
UPDATE sendout
SET state = 'failed', reason = $3, finished_at = CASE WHEN recipients IS NULL THEN now() END,
    lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND state IN ('queued', 'preparing') AND lease_token IS NOT DISTINCT FROM $2
RETURNING id;

-- set_not_resumed: store why a requested resume was rejected; NULL for a new request
UPDATE sendout SET not_resumed = $2 WHERE id = $1 AND not_resumed IS DISTINCT FROM $2;

-- unpause: resume a paused sendout; if it paused after its first part, the rest is no longer held
-- Other pauses do not end the first part.
UPDATE sendout
SET state = 'sending', reason = NULL, not_resumed = NULL, resumed_at = now(),
    rest_held = rest_held AND first_mailed_at IS NULL
WHERE id = $1 AND state = 'paused';

-- pause_after_first: pause the sendout $1, or each one if NULL, once each mail of its first part was tried
-- A deferred mail was tried. A mail that was not handed over is pending. A mail in flight has no outcome yet.
UPDATE sendout s
SET state = 'paused', first_mailed_at = now(), waiting_reason = NULL,
    reason = 'the first ' || CASE s.first_part WHEN 1 THEN 'recipient was' ELSE to_char(s.first_part, 'FM9,999,999,999') || ' recipients were' END
             || ' mailed; look at the result, then resume with `coupons resume ' || s.id || '`'
WHERE ($1::uuid IS NULL OR s.id = $1) AND s.state = 'sending' AND s.finished_at IS NULL AND s.rest_held
  AND NOT EXISTS (
      SELECT FROM delivery_batch b
      WHERE b.sendout_id = s.id AND NOT b.closed AND b.last_delivery <= s.first_part
        AND (b.lease_until > now() OR b.in_flight <> '{}'
             OR EXISTS (SELECT FROM delivery d
                        WHERE d.sendout_id = b.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
                          AND d.state = 'pending')))
RETURNING s.id;

-- pause: pause for the reason $2; returns no row if the sendout is not sending
UPDATE sendout SET state = 'paused', reason = $2, waiting_reason = NULL WHERE id = $1 AND state = 'sending' RETURNING id;

-- cancel: cancel a sendout that has not ended; workers then close its batches
-- The caller has locked the sendout's row, so that this statement sees the batches of a concurrent snapshot. If the sendout
-- has not started, it never does.
WITH samples AS (
    DELETE FROM sendout_speed WHERE sendout_id = $1
)
UPDATE sendout
SET state = 'cancelled', reason = NULL, waiting_reason = NULL, not_resumed = NULL, lease_token = NULL, lease_owner = NULL, lease_until = NULL,
    finished_at = CASE WHEN EXISTS (SELECT FROM delivery_batch WHERE sendout_id = $1 AND NOT closed) THEN NULL ELSE now() END,
    started_at = CASE WHEN started_at <= now() THEN started_at END
WHERE id = $1 AND state NOT IN ('finished', 'cancelled', 'failed')
RETURNING id;

-- returning_codes: the codes of each list that a cancellation returns: reserved ones, and those of mails that remain
-- A mail that was ever uncertain keeps its codes, and so does a mail in flight. Batches that were never claimed have no
-- assigned codes.
SELECT l.name, sl.reserved + coalesce(a.codes, 0) AS codes
FROM sendout_list sl
JOIN coupon_list l ON l.id = sl.list_id
LEFT JOIN LATERAL (
    SELECT count(*) AS codes
    FROM delivery_batch b
    CROSS JOIN LATERAL (
        SELECT number FROM delivery
        WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery
          AND state IN ('pending', 'deferred') AND NOT was_uncertain
        OFFSET 0
    ) d
    JOIN coupon c ON c.list_id = sl.list_id AND c.sendout_id = $1 AND c.delivery_number = d.number
    WHERE b.sendout_id = $1 AND NOT b.closed AND b.claimed_at IS NOT NULL AND d.number <> ALL (b.in_flight)
) a ON true
WHERE sl.sendout_id = $1
ORDER BY l.name;

-- release_reserved: make the reserved codes available again; the caller has locked the lists
WITH rest AS (
    SELECT list_id, reserved AS amount FROM sendout_list
    WHERE sendout_id = $1 AND reserved > 0 ORDER BY list_id FOR UPDATE
), given_back AS (
    UPDATE coupon_list l SET available = l.available + rest.amount FROM rest WHERE l.id = rest.list_id
)
UPDATE sendout_list sl SET reserved = sl.reserved - rest.amount
FROM rest WHERE sl.sendout_id = $1 AND sl.list_id = rest.list_id;

-- done: lock a sendout without open batches; returns no row if it has an open batch
SELECT id FROM sendout
WHERE id = $1 AND state IN ('sending', 'cancelled', 'failed') AND finished_at IS NULL
  AND NOT EXISTS (SELECT FROM delivery_batch WHERE sendout_id = $1 AND NOT closed)
FOR UPDATE;

-- finish: end a sendout whose deliveries all have a final state; return its numbers of refused and uncertain mails
WITH samples AS (
    DELETE FROM sendout_speed WHERE sendout_id = $1
)
UPDATE sendout s
SET state = CASE state WHEN 'sending' THEN 'finished' ELSE state END, finished_at = now(), waiting_reason = NULL
FROM (
    SELECT sum(refused)::integer AS refused, sum(uncertain)::integer AS uncertain FROM delivery_batch WHERE sendout_id = $1
) mails
WHERE s.id = $1 RETURNING s.id, s.state, mails.refused, mails.uncertain;

-- unfinished: sendouts without open batches that were not finished, because their last worker died
SELECT s.id FROM sendout s
WHERE s.finished_at IS NULL AND s.state IN ('sending', 'cancelled', 'failed')
  AND NOT EXISTS (SELECT FROM delivery_batch b WHERE b.sendout_id = s.id AND NOT b.closed);

-- set_waiting_reason_of_all: store why the sendouts that may send now make no progress
UPDATE sendout SET waiting_reason = $1
WHERE state = 'sending' AND finished_at IS NULL AND next_batch_at <= now() AND waiting_reason IS DISTINCT FROM $1;

-- set_waiting_reason: store why the sendout makes no progress; NULL once it does
UPDATE sendout SET waiting_reason = $2 WHERE id = $1 AND state = 'sending' AND waiting_reason IS DISTINCT FROM $2;

-- renew: renew the lease of a sendout that is being prepared; returns no row if the lease is lost
UPDATE sendout SET lease_until = now() + make_interval(secs => $3)
WHERE id = $1 AND lease_token = $2 AND lease_until > now() AND state = 'preparing' RETURNING id;
