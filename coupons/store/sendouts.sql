-- create: a sendout of a message's version; $4 not to be mailed before, $5 mails an hour, $6 minutes to be spread over,
-- $7 whether it resumes by itself
INSERT INTO sendout (id, message_id, group_id, start_at, per_hour, over_minutes, auto_resume, next_batch_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, greatest($4, now()));

-- claim: the oldest sendout that is to be prepared, under a new lease; none from data that nobody has accepted
UPDATE sendout
SET state = 'preparing', lease_token = gen_random_uuid(), lease_owner = $1,
    lease_until = now() + make_interval(secs => $2)
WHERE id = (
    SELECT id FROM sendout
    WHERE restore_guard_accepted() AND state IN ('queued', 'preparing') AND (lease_until IS NULL OR lease_until < now())
    ORDER BY created_at FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING id, lease_token, group_id, recipients;

-- lacking: recipients of a group without a name that the message needs
SELECT count(*) FROM recipient WHERE group_id = $1 AND NOT attributes ?& $2::text[];

-- snapshot_group: one delivery for each recipient of the group, numbered by address
INSERT INTO delivery (sendout_id, number, address_key, address, attributes)
SELECT $1, row_number() OVER (ORDER BY address_key), address_key, address, attributes
FROM recipient WHERE group_id = $2;

-- snapshot_given: one delivery for each address given, numbered as given
INSERT INTO delivery (sendout_id, number, address_key, address, attributes)
SELECT $1, row_number() OVER (ORDER BY position), address_key, address, attributes::jsonb
FROM (
    SELECT DISTINCT ON (address_key) address_key, address, attributes, position
    FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS given (address_key, address, attributes, position)
    ORDER BY address_key, position
) first;

-- pace: what spreading $2 mails over the time asked for means for an hour; returns the pace, if there is one
UPDATE sendout SET per_hour = coalesce(per_hour, $2::float8 * 60 / over_minutes) WHERE id = $1 RETURNING per_hour;

-- batches: the deliveries 1 … $2 in batches of $3
INSERT INTO delivery_batch (sendout_id, number, first_delivery, last_delivery, remaining)
SELECT $1, n, (n - 1) * $3 + 1, least(n * $3, $2), least(n * $3, $2) - (n - 1) * $3
FROM generate_series(1, ($2::integer + $3::integer - 1) / $3) n;

-- needs: one code of each list for each of $2 recipients
INSERT INTO sendout_list (sendout_id, list_id, needed)
SELECT s.id, ml.list_id, $2 FROM sendout s JOIN message_list ml USING (message_id) WHERE s.id = $1
ORDER BY ml.list_id;

-- taken: the snapshot is whole; no row if the lease was lost or the sendout cancelled meanwhile
UPDATE sendout SET recipients = $2
WHERE id = $1 AND recipients IS NULL AND finished_at IS NULL
  AND ($3::uuid IS NULL OR (lease_token = $3 AND lease_until > now() AND state = 'preparing'))
RETURNING id;

-- lock: the sendout's row, until the transaction ends
SELECT id, state, recipients, lease_token, finished_at FROM sendout WHERE id = $1 FOR UPDATE;

-- lock_lists: what it needs and what the lists have, these locked in the order of their ids
SELECT l.id AS list_id, l.name, l.shortage, sl.needed, l.available, l.archived_at, l.deleted_at
FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
WHERE sl.sendout_id = $1
ORDER BY l.id FOR NO KEY UPDATE OF l;

-- take: the granted amounts leave the lists
UPDATE coupon_list l SET available = l.available - granted.amount
FROM unnest($1::bigint[], $2::bigint[]) AS granted (list_id, amount)
WHERE l.id = granted.list_id;

-- reserve: … and are reserved for the sendout, which copies the list's shortage setting
UPDATE sendout_list sl
SET reserved = granted.amount, missing = sl.needed - granted.amount,
    shortage = l.shortage, alternative_text = l.alternative_text
FROM unnest($2::bigint[], $3::bigint[]) AS granted (list_id, amount) JOIN coupon_list l ON l.id = granted.list_id
WHERE sl.sendout_id = $1 AND sl.list_id = granted.list_id;

-- note_missing: of each list, whether it pauses the sendout or not
UPDATE sendout_list sl
SET missing = greatest(0, sl.needed - l.available), shortage = l.shortage, alternative_text = l.alternative_text
FROM coupon_list l WHERE sl.sendout_id = $1 AND l.id = sl.list_id;

-- begin: it sends
UPDATE sendout
SET state = 'sending', reason = NULL, started_at = now(), lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND state IN ('preparing', 'interrupted');

-- interrupt: it cannot, for $2
UPDATE sendout
SET state = 'interrupted', reason = $2, lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND state IN ('preparing', 'interrupted');

-- fail: it never can, for $3
UPDATE sendout
SET state = 'failed', reason = $3, finished_at = now(), lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND state = 'preparing' AND lease_token = $2
RETURNING id;

-- unpause: go on
UPDATE sendout SET state = 'sending', reason = NULL WHERE id = $1 AND state = 'paused';

-- pause: for $2; no row if it is not sending
UPDATE sendout SET state = 'paused', reason = $2, waiting_reason = NULL WHERE id = $1 AND state = 'sending' RETURNING id;

-- cancel: whatever it does; workers close its batches. Its row is locked: what a snapshot commits meanwhile is seen
UPDATE sendout
SET state = 'cancelled', reason = NULL, waiting_reason = NULL, lease_token = NULL, lease_owner = NULL, lease_until = NULL,
    finished_at = CASE WHEN EXISTS (SELECT FROM delivery_batch WHERE sendout_id = $1 AND NOT closed) THEN NULL ELSE now() END
WHERE id = $1 AND state NOT IN ('finished', 'cancelled', 'failed')
RETURNING id;

-- release_reserved: codes that were reserved and never assigned are available again; the lists are locked
WITH rest AS (
    SELECT list_id, reserved AS amount FROM sendout_list
    WHERE sendout_id = $1 AND reserved > 0 ORDER BY list_id FOR UPDATE
), given_back AS (
    UPDATE coupon_list l SET available = l.available + rest.amount FROM rest WHERE l.id = rest.list_id
)
UPDATE sendout_list sl SET reserved = sl.reserved - rest.amount
FROM rest WHERE sl.sendout_id = $1 AND sl.list_id = rest.list_id;

-- done: a sendout of which nothing is open; no row if that is not so
SELECT id FROM sendout
WHERE id = $1 AND state IN ('sending', 'cancelled') AND finished_at IS NULL
  AND NOT EXISTS (SELECT FROM delivery_batch WHERE sendout_id = $1 AND NOT closed)
FOR UPDATE;

-- finish: its last delivery has an outcome
UPDATE sendout
SET state = CASE state WHEN 'sending' THEN 'finished' ELSE state END, finished_at = now(), waiting_reason = NULL
WHERE id = $1;

-- unfinished: sendouts of which nothing is open, although nobody has said so
SELECT s.id FROM sendout s
WHERE s.finished_at IS NULL AND s.state IN ('sending', 'cancelled')
  AND NOT EXISTS (SELECT FROM delivery_batch b WHERE b.sendout_id = s.id AND NOT b.closed);

-- set_waiting_reason_of_all: why none of them makes progress
UPDATE sendout SET waiting_reason = $1
WHERE state = 'sending' AND finished_at IS NULL AND next_batch_at <= now() AND waiting_reason IS DISTINCT FROM $1;

-- set_waiting_reason: why it makes no progress; NULL when it does again
UPDATE sendout SET waiting_reason = $2 WHERE id = $1 AND state = 'sending' AND waiting_reason IS DISTINCT FROM $2;

-- renew: the lease of a sendout that is being prepared; no row if it is lost
UPDATE sendout SET lease_until = now() + make_interval(secs => $3)
WHERE id = $1 AND lease_token = $2 AND lease_until > now() AND state = 'preparing' RETURNING id;
