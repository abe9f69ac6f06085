-- is_past: whether the start $1 is further in the past than $2
SELECT $1::timestamptz < now() - $2::interval;

-- lock: lock a sendout until the transaction ends
SELECT id FROM sendout WHERE id = $1 FOR UPDATE;

-- locked: the state of a locked sendout now, and the number of mails that remain to be sent
-- The lock may have to be awaited, and the start time may come until it is held. A statement with FOR UPDATE would compute
-- the state before it waits.
SELECT CASE WHEN s.state = 'sending' AND s.start_at > clock_timestamp() THEN 'scheduled' ELSE s.state END AS state,
       (SELECT coalesce(sum(remaining), 0)::integer FROM delivery_batch WHERE sendout_id = $1) AS remaining
FROM sendout s WHERE s.id = $1;

-- set_start: change the start to $2; NULL: now
-- The time that mails already sent take at the rate limit is kept: it is the part of `next_batch_at` after the start and
-- after now. A sendout of which a mail was handed over keeps the time of its first start.
UPDATE sendout s
SET start_at = $2,
    next_batch_at = greatest($2, now() + greatest(interval '0', s.next_batch_at - greatest(s.start_at, now()))),
    started_at = CASE WHEN EXISTS (
        SELECT FROM delivery_batch WHERE sendout_id = $1
          AND (remaining < last_delivery - first_delivery + 1 OR in_flight <> '{}' OR claimed_at IS NOT NULL)
    ) THEN s.started_at ELSE greatest($2, now()) END
WHERE s.id = $1;

-- set_pace: change the rate limit to $2 mails per hour, NULL for no limit; $3 minutes if the mails are spread over them
-- The mails that were already sent ahead of the old limit are waited for at the new limit.
UPDATE sendout s
SET per_hour = $2, over_minutes = $3,
    next_batch_at = greatest(s.start_at, now() + coalesce(
        greatest(interval '0', s.next_batch_at - greatest(s.start_at, now())) * (s.per_hour / $2::float8), interval '0'))
WHERE s.id = $1;
