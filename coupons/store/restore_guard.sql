-- accepted: whether workers may send
SELECT database_accepted();

-- state: the identity of the database, the current acceptance, and their differences
-- `mark` changes when any of these changes.
SELECT database_accepted() AS accepted, e.number, e.accepted_at, n.timeline, e.timeline AS accepted_timeline,
       pg_is_in_recovery() AS is_replica, e.number IS NULL AS is_new,
       EXISTS (SELECT FROM restore_guard WHERE ended_at IS NULL AND written_by <> xmin) AS is_restored,
       e.cluster <> n.cluster AS is_elsewhere, e.database <> n.database AS is_copy,
       concat_ws(' ', n.*, (SELECT string_agg(concat_ws(' ', number, xmin), ' ' ORDER BY number, xmin::text)
                            FROM restore_guard)) AS mark
FROM this_database() n
LEFT JOIN (SELECT * FROM restore_guard WHERE ended_at IS NULL ORDER BY number DESC LIMIT 1) e ON true;

-- reaches: the last time at which mails were claimed or recorded, and the last time of any other work
SELECT (SELECT max(greatest(flushed_at, claimed_at)) FROM delivery_batch) AS mails_until,
       greatest((SELECT max(received_at) FROM command),
                (SELECT max(greatest(progressed_at, finished_at)) FROM import_job),
                (SELECT max(greatest(created_at, CASE WHEN start_at IS NULL THEN started_at END, finished_at)) FROM sendout)
               ) AS work_until,
       now();

-- sendouts: sendouts that have not ended, whose mails may have been sent since the backup
-- A scheduled one may have been rescheduled since the backup, and then have started.
SELECT s.id, m.name AS message, CASE WHEN s.state = 'sending' AND s.start_at > now() THEN 'scheduled' ELSE s.state END AS state,
       s.recipients, coalesce(b.sent, 0) AS sent,
       coalesce(b.uncertain, 0) AS uncertain, coalesce(b.remaining, s.recipients) AS remaining
FROM sendout s
JOIN message m ON m.id = s.message_id
LEFT JOIN LATERAL (
    SELECT sum(remaining) AS remaining, sum(sent) AS sent, sum(uncertain) AS uncertain FROM delivery_batch WHERE sendout_id = s.id
) b ON true
WHERE s.finished_at IS NULL AND s.state NOT IN ('cancelled', 'failed')
ORDER BY s.created_at, s.id;

-- lists: lists with unassigned codes that may have been sent since the backup
SELECT l.name, l.available, coalesce(r.reserved, 0) AS reserved
FROM coupon_list l
LEFT JOIN LATERAL (
    SELECT sum(reserved)::bigint AS reserved FROM sendout_list WHERE list_id = l.id
) r ON true
WHERE l.deleted_at IS NULL AND (l.available > 0 OR r.reserved > 0)
ORDER BY l.name;

-- lock: let no other transaction accept the database until this one ends; workers can still read
LOCK TABLE restore_guard IN SHARE ROW EXCLUSIVE MODE;

-- end: end the current acceptance
UPDATE restore_guard SET ended_at = now() WHERE ended_at IS NULL;

-- begin: accept the database as it is now
INSERT INTO restore_guard (number, cluster, timeline, database)
SELECT coalesce((SELECT max(number) FROM restore_guard), 0) + 1, cluster, timeline, database FROM this_database();

-- void: end all leases, because their workers may have sent mails that this database does not know
UPDATE delivery_batch SET lease_token = gen_random_uuid(), lease_until = now()
WHERE lease_token IS NOT NULL AND NOT closed;

-- lock_sendouts: lock the sendouts that have started, so that they cannot be cancelled now
SELECT id FROM sendout WHERE state IN ('sending', 'paused') AND finished_at IS NULL ORDER BY id FOR UPDATE;

-- continue_started: make the sendouts that have started sending, so that they finish, because none of their mails remain
-- A paused one may have been resumed since the backup, whatever its start is now: after some mails, it can be rescheduled.
UPDATE sendout SET state = 'sending', reason = NULL, start_at = NULL
WHERE state IN ('sending', 'paused') AND finished_at IS NULL AND (started_at > now()) IS NOT TRUE;

-- pause_scheduled: pause the sendouts that have not started, for the reason $1
UPDATE sendout SET state = 'paused', reason = $1
WHERE state IN ('sending', 'paused') AND finished_at IS NULL AND started_at > now();

-- seize: claim the open batches of the sendouts that are sending
UPDATE delivery_batch b
SET lease_token = gen_random_uuid(), lease_owner = 'restore guard', lease_until = now() + interval '1 day'
FROM sendout s
WHERE s.id = b.sendout_id AND s.state = 'sending' AND s.finished_at IS NULL AND NOT b.closed
RETURNING b.sendout_id, b.number, b.first_delivery, b.last_delivery, b.lease_token, s.state AS sendout_state;

-- remaining: a batch's deliveries that remain to be sent
SELECT number FROM delivery
WHERE sendout_id = $1 AND number BETWEEN $2 AND $3 AND state IN ('pending', 'deferred') ORDER BY number;

-- never_resend: mark mails that may have been sent after the backup with another code of the same list
UPDATE delivery SET never_resend = true WHERE sendout_id = $1 AND number = ANY ($2::integer[]);
