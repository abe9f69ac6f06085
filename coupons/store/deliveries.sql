-- claim: claim a due batch of a sendout that is sending, cancelled or failed or, if $3, not of a sending one
-- While the rest of a sending sendout is held, only batches of its first part are claimed.
-- The sendout is chosen at random, so that a small one does not wait for a large one to finish. From its batches, the
-- one that became due last is claimed. The statement returns no row while the restore guard blocks sending, because
-- closing a batch would return codes that may have been sent since the backup.
WITH sending AS MATERIALIZED (
    SELECT id, state, per_hour, waiting_reason, recipients, CASE WHEN state = 'sending' AND rest_held THEN first_part END AS only_first
    FROM sendout
    WHERE database_accepted() AND finished_at IS NULL
      AND (state IN ('cancelled', 'failed') OR (NOT $3 AND state = 'sending' AND next_batch_at <= now()))
    ORDER BY random()
), due AS (
    SELECT b.sendout_id, b.number, b.in_flight, s.state, s.per_hour, s.waiting_reason, s.recipients, s.only_first IS NOT NULL AS rest_held
    FROM sending s CROSS JOIN LATERAL (
        SELECT sendout_id, number, in_flight FROM delivery_batch
        WHERE sendout_id = s.id AND NOT closed AND due_at <= now() AND (lease_until IS NULL OR lease_until < now())
          AND (s.only_first IS NULL OR last_delivery <= s.only_first)
        ORDER BY due_at DESC, number FOR UPDATE SKIP LOCKED LIMIT 1
    ) b
    LIMIT 1
)
UPDATE delivery_batch b
SET lease_token = gen_random_uuid(), lease_owner = $1, lease_until = now() + make_interval(secs => $2),
    claimed_at = now()
FROM due WHERE b.sendout_id = due.sendout_id AND b.number = due.number
RETURNING b.sendout_id, b.number, b.first_delivery, b.last_delivery, b.lease_token, due.state AS sendout_state,
          due.in_flight AS abandoned, due.per_hour, due.waiting_reason, due.rest_held, due.recipients;

-- sample: store how many outcomes sendout $1 has, unless this was done within $2 seconds; keep the last $3 samples
-- The time of a sample is that of the last outcome: relays often accept mails in bursts, and the time since the last burst
-- says nothing about the rate. If there was no outcome within 5 s, it is now.
-- The lock keeps the sendout from ending, because its end deletes the samples.
WITH unfinished AS MATERIALIZED (
    SELECT id FROM sendout WHERE id = $1 AND finished_at IS NULL FOR KEY SHARE
)
INSERT INTO sendout_speed AS s (sendout_id, times, outcomes, first_outcomes)
SELECT $1, ARRAY[CASE WHEN max(progressed_at) > now() - interval '5 s' THEN max(progressed_at) ELSE now() END], ARRAY[sum(outcomes)], ARRAY[sum(first_outcomes)]
FROM delivery_batch
WHERE sendout_id = (SELECT id FROM unfinished) AND NOT EXISTS (
    SELECT FROM sendout_speed WHERE sendout_id = $1 AND times[cardinality(times)] > now() - make_interval(secs => $2))
HAVING count(*) > 0
ON CONFLICT (sendout_id) DO UPDATE
SET times = (s.times || excluded.times)[greatest(cardinality(s.times) + 2 - $3::integer, 1):],
    outcomes = (s.outcomes || excluded.outcomes)[greatest(cardinality(s.times) + 2 - $3::integer, 1):],
    first_outcomes = (s.first_outcomes || excluded.first_outcomes)[greatest(cardinality(s.times) + 2 - $3::integer, 1):];

-- take_turn: delay the next batch of a sendout with a rate limit by the time for at most $4 of this batch's mails ($2 … $3)
-- Returns no row if another worker has claimed the sendout's next batch first.
UPDATE sendout SET next_batch_at = now() + make_interval(secs => due.mails * 3600 / per_hour)
FROM (
    SELECT least(count(*), $4::integer) AS mails FROM delivery
    WHERE sendout_id = $1 AND number BETWEEN $2 AND $3 AND (state = 'pending' OR (state = 'deferred' AND due_at <= now()))
) due
WHERE id = $1 AND next_batch_at <= now() RETURNING id;

-- abandoned: claim a batch that a dead worker left with mails in flight, whatever the state of its sendout
UPDATE delivery_batch b
SET lease_token = gen_random_uuid(), lease_owner = $1, lease_until = now() + make_interval(secs => $2)
FROM (
    SELECT b.sendout_id, b.number, s.state, s.per_hour FROM delivery_batch b JOIN sendout s ON s.id = b.sendout_id
    WHERE database_accepted() AND NOT b.closed AND b.lease_until < now() AND b.in_flight <> '{}'
    FOR UPDATE OF b SKIP LOCKED LIMIT 1
) left_behind
WHERE b.sendout_id = left_behind.sendout_id AND b.number = left_behind.number
RETURNING b.sendout_id, b.number, b.first_delivery, b.last_delivery, b.lease_token,
          left_behind.state AS sendout_state, b.in_flight AS abandoned, left_behind.per_hour;

-- next_due: seconds until a batch can be claimed that cannot be claimed now
SELECT extract(epoch FROM min(greatest(s.next_batch_at, b.due_at)) - now())::float8
FROM sendout s CROSS JOIN LATERAL (
    SELECT min(due_at) AS due_at FROM delivery_batch
    WHERE sendout_id = s.id AND NOT closed AND lease_token IS NULL AND (NOT s.rest_held OR last_delivery <= s.first_part)
) b
WHERE s.finished_at IS NULL AND s.state = 'sending';

-- hold: lock a leased batch; returns no row if the lease is lost or the restore guard blocks sending
SELECT last_flush, in_flight FROM delivery_batch
WHERE database_accepted() AND sendout_id = $1 AND number = $2 AND lease_token = $3 AND lease_until > now()
FOR NO KEY UPDATE;

-- accepted: whether the restore guard lets workers send
SELECT database_accepted();

-- hold_sendout: whether mails of the sendout may be sent; keep this unchanged until the transaction ends
SELECT state = 'sending' AND (start_at IS NULL OR start_at <= now()) FROM sendout WHERE id = $1 FOR SHARE;

-- lock_reserved: how many codes of each list the sendout may still assign
SELECT list_id, reserved FROM sendout_list
WHERE sendout_id = $1 ORDER BY list_id FOR UPDATE;

-- assign_codes: assign at most $5 available codes of list $4 with `id > $6` to the batch's deliveries that need one
-- The planner has only one way to execute this statement. This matters because a new sendout has no statistics, and a
-- prepared statement becomes generic after five runs (docs/decisions/0002). Milliseconds for a batch of 1,000
-- deliveries (a) with 40,000 codes and no statistics, (b) with 1,000,000 codes and statistics:
--     correlated NOT EXISTS for deliveries without a code    (a) 130 and rising: reads the sendout's codes for each
--                                                            delivery
--     join of the codes by (list_id, id)                     (a) 7,000–14,000, (b) 80–200: reads the list for each code
--     update by ctid, numbers paired through arrays          (a) 8–19, (b) 8–19; this statement
-- MATERIALIZED keeps the planner from updating more rows than the LIMIT. A claim with ON CONFLICT DO NOTHING would lose
-- codes.
WITH wanting AS MATERIALIZED (
    SELECT array_agg(number ORDER BY number) AS numbers, count(*) AS wanted FROM (
        SELECT number FROM delivery
        WHERE sendout_id = $1 AND number BETWEEN $2 AND $3 AND state IN ('pending', 'deferred')
          AND (lists IS NULL OR $4 = ANY (lists))
          AND number NOT IN (SELECT delivery_number FROM coupon
                             WHERE list_id = $4 AND sendout_id = $1 AND delivery_number BETWEEN $2 AND $3)
        ORDER BY number LIMIT $5
    ) without_code
), free AS MATERIALIZED (
    SELECT id, ctid AS place FROM coupon
    WHERE list_id = $4 AND sendout_id IS NULL AND id > $6
    ORDER BY id LIMIT (SELECT wanted FROM wanting) FOR UPDATE SKIP LOCKED
), found AS MATERIALIZED (
    SELECT array_agg(id ORDER BY id) AS ids, array_agg(place) AS places FROM free
), owned AS (
    UPDATE coupon
    SET sendout_id = $1,
        delivery_number = (SELECT numbers FROM wanting)[array_position((SELECT ids FROM found), coupon.id)]
    WHERE coupon.ctid = ANY ((SELECT places FROM found)::tid[]) AND coupon.sendout_id IS NULL
    RETURNING coupon.id
), counted AS (
    SELECT count(*) AS assigned, max(id) AS last_id FROM owned
), moved AS (
    UPDATE sendout_list
    SET reserved = reserved - counted.assigned, assigned = sendout_list.assigned + counted.assigned FROM counted
    WHERE sendout_id = $1 AND list_id = $4
)
SELECT wanted, assigned, last_id FROM wanting CROSS JOIN counted;

-- due: the batch's deliveries that are due, at most $4; with this limit, retries come before first attempts
-- The time that a sendout is paused does not count as deferred: it counts from the last resume.
SELECT d.number, d.address, d.attributes, d.lists, d.attempts, d.was_uncertain,
       CASE WHEN d.deferred_since IS NOT NULL
            THEN extract(epoch FROM now() - greatest(d.deferred_since, s.resumed_at))::float8 END AS deferred_for,
       coalesce(d.deferred_since < s.resumed_at, false) AS was_resumed
FROM delivery d CROSS JOIN (SELECT resumed_at FROM sendout WHERE id = $1) s
WHERE d.sendout_id = $1 AND d.number BETWEEN $2 AND $3
  AND (d.state = 'pending' OR (d.state = 'deferred' AND d.due_at <= now()))
ORDER BY $4::integer IS NOT NULL AND d.state = 'pending', d.number LIMIT $4;

-- codes: the codes of the batch's deliveries
SELECT delivery_number, list_id, code FROM coupon
WHERE list_id = ANY ($4::bigint[]) AND sendout_id = $1 AND delivery_number BETWEEN $2 AND $3;

-- lists: the lists of a sendout, with the text that replaces a missing code
SELECT sl.list_id, l.name, sl.shortage, sl.alternative_text
FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id WHERE sl.sendout_id = $1 ORDER BY sl.list_id;

-- flush: record the results of mails and the intents to send the next ones; renew the lease for $14 seconds
-- $4 is the id of the flush. The results are numbers $7, states $8, replies $9, attempts $10 and seconds until due $11.
-- $12 are lists, and $13 is the number of codes of each that were sent. The mails in flight are then $5 and, if the
-- sendout is sending, also the intents $6. Returns whether the intended mails may be handed over; returns no row if the
-- lease is lost or this flush was already committed.
-- This is one statement with one round trip; four statements took a third of a worker's time. If a delivery is not in
-- the expected state, `remaining` gets a value that its CHECK rejects, so nothing is written.
-- Rows are matched by array positions instead of a join. Without statistics, the join read all deliveries of the
-- sendout for each of 100 rows: 1,165 µs per row instead of 6 (docs/decisions/0005).
WITH held AS MATERIALIZED (
    SELECT s.state = 'sending' AND (s.start_at IS NULL OR s.start_at <= now()) AND s.per_hour IS NOT DISTINCT FROM $15 AS may_send,
           b.remaining, b.deferred
    FROM delivery_batch b JOIN sendout s ON s.id = b.sendout_id
    WHERE database_accepted() AND b.sendout_id = $1 AND b.number = $2 AND b.lease_token = $3 AND b.lease_until > now()
      AND b.last_flush IS DISTINCT FROM $4
    FOR NO KEY UPDATE OF b
), before AS MATERIALIZED (  -- reads deliveries only if the batch has deferred ones; their locks omit mails just retried
    SELECT count(*) AS deferred FROM (
        SELECT FROM delivery
        WHERE EXISTS (SELECT FROM held WHERE deferred > 0)
          AND sendout_id = $1 AND number = ANY ($7::integer[]) AND state = 'deferred'
        FOR NO KEY UPDATE
    ) locked
), concluded AS (  -- after `before`, which would not lock a changed row
    UPDATE delivery
    SET state = ($8::text[])[array_position($7::integer[], number)],
        reply = ($9::text[])[array_position($7::integer[], number)],
        attempts = attempts + ($10::integer[])[array_position($7::integer[], number)],
        due_at = now() + make_interval(secs => ($11::float8[])[array_position($7::integer[], number)]),
        deferred_since = CASE ($8::text[])[array_position($7::integer[], number)]
                         WHEN 'deferred' THEN coalesce(deferred_since, now()) ELSE deferred_since END,
        was_uncertain = was_uncertain OR ($8::text[])[array_position($7::integer[], number)] = 'uncertain',
        changed_at = now()
    WHERE EXISTS (SELECT FROM held) AND EXISTS (SELECT FROM before)
      AND sendout_id = $1 AND number = ANY ($7::integer[]) AND state IN ('pending', 'deferred')
    RETURNING state
), moved AS (
    SELECT count(*) AS deliveries, count(*) FILTER (WHERE state = 'sent') AS sent,
           count(*) FILTER (WHERE state = 'refused') AS refused, count(*) FILTER (WHERE state = 'uncertain') AS uncertain,
           count(*) FILTER (WHERE state = 'deferred') AS deferred
    FROM concluded
), after AS (  -- a wrong counter blocks no outcome: `release` counts again
    SELECT greatest(0, least(held.deferred - before.deferred + m.deferred,
                             held.remaining - m.sent - m.refused - m.uncertain)) AS deferred
    FROM held CROSS JOIN before CROSS JOIN moved m
), mine AS MATERIALIZED (  -- ordered by list, so that workers do not deadlock
    SELECT list_id FROM sendout_list
    WHERE EXISTS (SELECT FROM held) AND sendout_id = $1 AND list_id = ANY ($12::bigint[]) ORDER BY list_id FOR UPDATE
), counted AS (
    UPDATE sendout_list sl
    SET assigned = sl.assigned - ($13::bigint[])[array_position($12::bigint[], sl.list_id)],
        sent = sl.sent + ($13::bigint[])[array_position($12::bigint[], sl.list_id)]
    FROM mine WHERE sl.sendout_id = $1 AND sl.list_id = mine.list_id
)
UPDATE delivery_batch b
SET remaining = CASE WHEN m.deliveries = cardinality($7::integer[]) THEN b.remaining - m.sent - m.refused - m.uncertain ELSE -1 END,
    sent = b.sent + m.sent, refused = b.refused + m.refused, uncertain = b.uncertain + m.uncertain,
    closed = (b.remaining = m.sent + m.refused + m.uncertain), last_flush = $4, flushed_at = now(),
    lease_until = now() + make_interval(secs => $14),
    in_flight = $5::integer[] || CASE WHEN held.may_send THEN $6::integer[] ELSE '{}' END,
    deferred = after.deferred,
    next_attempt_at = CASE WHEN after.deferred > 0 THEN least(
        b.next_attempt_at, now() + make_interval(secs => (
            SELECT min(due_in) FROM unnest($8::text[], $11::float8[]) AS r (state, due_in) WHERE state = 'deferred'))) END,
    outcomes = b.outcomes + m.deliveries, first_outcomes = b.first_outcomes + m.deliveries - before.deferred,
    progressed_at = CASE WHEN m.deliveries > 0 THEN now() ELSE b.progressed_at END
FROM held CROSS JOIN before CROSS JOIN moved m CROSS JOIN after
WHERE b.sendout_id = $1 AND b.number = $2
RETURNING held.may_send;

-- log_attempts: store the replies to attempts after which another attempt may follow
-- For a mail that was not attempted again, the row with its last reply exists already.
INSERT INTO delivery_attempt (sendout_id, number, attempt, outcome, reply)
SELECT d.sendout_id, d.number, d.attempts, d.state, d.reply FROM delivery d
WHERE d.sendout_id = $1 AND d.number = ANY ($2::integer[])
ON CONFLICT DO NOTHING;

-- free_codes: unassign the codes of deliveries that will not be mailed; return the amount per list
WITH freed AS (
    UPDATE coupon SET sendout_id = NULL, delivery_number = NULL
    WHERE list_id IN (SELECT list_id FROM sendout_list WHERE sendout_id = $1)
      AND sendout_id = $1 AND delivery_number = ANY ($2::integer[])
    RETURNING list_id
)
SELECT list_id, count(*) AS amount FROM freed GROUP BY list_id ORDER BY list_id;

-- free_unused: unassign the codes of list $2 of deliveries whose mails do not print them
UPDATE coupon SET sendout_id = NULL, delivery_number = NULL
WHERE list_id = $2 AND sendout_id = $1 AND delivery_number = ANY ($3::integer[]);

-- lock_counters: lock the sendout's counters of these lists in the order of their ids, before any of them changes
SELECT list_id FROM sendout_list WHERE sendout_id = $1 AND list_id = ANY ($2::bigint[]) ORDER BY list_id FOR UPDATE;

-- unneed: the deliveries $3 no longer need list $2
WITH changed AS (
    UPDATE delivery
    SET lists = array_remove(coalesce(lists, ARRAY(SELECT list_id FROM sendout_list WHERE sendout_id = $1 ORDER BY list_id)), $2)
    WHERE sendout_id = $1 AND number = ANY ($3::integer[])
    RETURNING number
)
UPDATE sendout_list SET needed = needed - (SELECT count(*) FROM changed) WHERE sendout_id = $1 AND list_id = $2;

-- lock_lists: lock lists in the order of their ids, before their counters change
SELECT id FROM coupon_list WHERE id = ANY ($1::bigint[]) ORDER BY id FOR NO KEY UPDATE;

-- give_back: add the unassigned codes to the available codes of their lists
UPDATE coupon_list l SET available = l.available + freed.amount
FROM unnest($1::bigint[], $2::bigint[]) AS freed (list_id, amount) WHERE l.id = freed.list_id;

-- unassign: subtract the unassigned codes from the counters of the sendout
WITH mine AS MATERIALIZED (
    SELECT list_id FROM sendout_list WHERE sendout_id = $1 AND list_id = ANY ($2::bigint[]) ORDER BY list_id FOR UPDATE
)
UPDATE sendout_list sl SET assigned = sl.assigned - freed.amount
FROM mine JOIN unnest($2::bigint[], $3::bigint[]) AS freed (list_id, amount) USING (list_id)
WHERE sl.sendout_id = $1 AND sl.list_id = freed.list_id;

-- cancel: cancel the remaining deliveries of a batch; those that were ever uncertain become uncertain again
UPDATE delivery
SET state = CASE WHEN was_uncertain THEN 'uncertain' ELSE 'cancelled' END, due_at = NULL, changed_at = now()
WHERE sendout_id = $1 AND number BETWEEN $2 AND $3 AND state IN ('pending', 'deferred')
RETURNING number, state;

-- close: close a batch whose remaining mails have become cancelled ($4 mails) or uncertain ($5 mails)
UPDATE delivery_batch
SET remaining = remaining - $4 - $5, cancelled = cancelled + $4, uncertain = uncertain + $5, closed = (remaining = $4 + $5),
    deferred = 0, next_attempt_at = NULL, flushed_at = now()
WHERE sendout_id = $1 AND number = $2 AND lease_token = $3;

-- lock_batch: lock a leased batch, so that the next statement sees every delivery that an operator has retried
SELECT FROM delivery_batch WHERE sendout_id = $1 AND number = $2 AND lease_token = $3 FOR NO KEY UPDATE;

-- release: release the batch and count its deferred mails; it is due when its next delivery is due, but not within $4 seconds
-- A batch with a mail that was never tried stays due since its creation. Otherwise a batch of a sendout with a rate limit,
-- which is claimed many times, would always be claimed before a batch whose deferred mail became due.
-- If only deferred deliveries are left, those that are due within $5 seconds are retried together. When the batch was claimed
-- for each of them, 10 % of deferred mails reduced the rate of the others by a third.
UPDATE delivery_batch b
SET lease_token = NULL, lease_owner = NULL, lease_until = NULL,
    (due_at, deferred, next_attempt_at) = (
        SELECT CASE WHEN b.closed THEN b.due_at
                    ELSE greatest(CASE WHEN $4::float8 > 0 THEN now() + make_interval(secs => $4) END,
                                  CASE WHEN bool_or(d.state = 'pending') THEN min(coalesce(d.due_at, least(b.due_at, now())))
                                       ELSE least(max(d.due_at), min(d.due_at) + make_interval(secs => $5)) END) END,
               count(*) FILTER (WHERE d.state = 'deferred'),
               least(max(d.due_at) FILTER (WHERE d.state = 'deferred'),
                     min(d.due_at) FILTER (WHERE d.state = 'deferred') + make_interval(secs => $5))
        FROM delivery d
        WHERE d.sendout_id = b.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
          AND d.state IN ('pending', 'deferred'))
WHERE b.sendout_id = $1 AND b.number = $2 AND b.lease_token = $3;

-- renew: renew the lease of a batch; returns no row if the lease is lost
UPDATE delivery_batch SET lease_until = now() + make_interval(secs => $4)
WHERE sendout_id = $1 AND number = $2 AND lease_token = $3 AND lease_until > now()
RETURNING number;
