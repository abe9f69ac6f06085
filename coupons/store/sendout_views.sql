-- rows: $3 sendouts with their delivery counts, newest first; only the id $1 and the state $2 or all unfinished ones, unless
-- NULL, and only those before the sendout $6 that was created at $5
-- A sending sendout whose start time has not come is scheduled. A sendout is stalled if its next step needs a worker, nothing
-- has moved for a lease ($4 seconds), and no worker with the role `needed_role` shows life.
-- The columns from `times` to `claimed_seconds` give rate and time left (coupons/sendout_speed.py). Like a sample, the present
-- numbers are those at the time of the last outcome; if that was longer than 5 s ago, of a time 5 s ago.
-- The sendouts are chosen before anything else is read. Otherwise a generic plan, which expects one sendout, adds up the
-- batches of all sendouts before it sorts them: 334 ms instead of 15 for 100 of 2,000 sendouts with 100 batches each.
WITH chosen AS MATERIALIZED (
    SELECT s.* FROM sendout s
    WHERE ($1::uuid IS NULL OR s.id = $1)
      AND ($2::text IS NULL OR ($2 = 'unfinished' AND s.finished_at IS NULL)
           -- not v.state: the index sendout_state has the stored states, and the planner knows their frequencies
           OR s.state = CASE $2::text WHEN 'scheduled' THEN 'sending' ELSE $2 END)
      AND ($2 IS DISTINCT FROM 'scheduled' OR s.start_at > now())
      AND ($2 IS DISTINCT FROM 'sending' OR coalesce(s.start_at, now()) <= now())
      AND ($6::uuid IS NULL OR (s.created_at, s.id) < ($5::timestamptz, $6))
    ORDER BY s.created_at DESC, s.id DESC LIMIT $3
)
SELECT s.id, m.name AS message, m.version AS message_version, coalesce(g.name, s.group_name) AS "group", v.state, s.reason,
       s.waiting_reason, EXISTS (SELECT FROM sendout_wait w WHERE w.sendout_id = s.id) AS is_waiting, s.not_resumed,
       s.recipients, s.created_at, s.start_at, CASE WHEN s.started_at <= now() THEN s.started_at END AS started_at, s.finished_at, s.per_hour,
       s.auto_resume, s.first_part AS first, s.rest_held, s.state = 'paused' AND s.rest_held AND s.first_mailed_at IS NOT NULL AS is_first_mailed,
       s.skip_already_mailed, s.already_mailed, n.role AS needed_role, n.role IS NOT NULL AND l.is_stalled AS stalled,
       coalesce(b.remaining, 0) AS remaining, coalesce(b.in_flight, 0) AS in_flight, coalesce(b.leased_batches, 0) AS leased_batches,
       coalesce(b.sent, 0) AS sent, coalesce(b.refused, 0) AS refused, coalesce(b.uncertain, 0) AS uncertain,
       coalesce(b.cancelled, 0) AS cancelled,
       coalesce(b.deferred, 0) AS deferred,
       CASE WHEN v.state = 'sending' THEN
            greatest(b.next_attempt_at, CASE WHEN s.per_hour IS NOT NULL AND b.deferred > 0 THEN s.next_batch_at END) END AS next_attempt_at,
       w.times, w.outcomes, w.first_outcomes,
       greatest(b.progressed_at, now() - interval '5 s') AS last_at, b.outcomes AS last_outcomes,
       b.first_outcomes AS last_first_outcomes, b.progressed_at, s.resumed_at, now(),
       extract(epoch FROM s.next_batch_at - now())::float8 AS next_batch_in, b.pending, b.unclaimed, b.unclaimed_batches,
       b.batch_seconds, b.claimed_seconds
FROM chosen s
CROSS JOIN LATERAL (SELECT CASE WHEN s.state = 'sending' AND s.start_at > now() THEN 'scheduled' ELSE s.state END AS state) v
JOIN message m ON m.id = s.message_id
LEFT JOIN recipient_group g ON g.id = s.group_id
LEFT JOIN sendout_wait sw ON sw.sendout_id = s.id
CROSS JOIN LATERAL (
    SELECT CASE WHEN s.finished_at IS NOT NULL OR v.state = 'scheduled' THEN NULL
                WHEN s.state IN ('queued', 'preparing') OR sw.sendout_id IS NOT NULL THEN 'sendout'
                WHEN s.state IN ('sending', 'cancelled', 'failed') THEN 'deliver' END AS role
) n
LEFT JOIN LATERAL (
    SELECT sum(remaining) AS remaining, sum(cardinality(in_flight)) AS in_flight, count(*) FILTER (WHERE lease_until > now()) AS leased_batches,
           sum(sent) AS sent, sum(refused) AS refused, sum(uncertain) AS uncertain, sum(cancelled) AS cancelled,
           sum(deferred) AS deferred, min(next_attempt_at) AS next_attempt_at,
           sum(outcomes)::bigint AS outcomes, sum(first_outcomes)::bigint AS first_outcomes, max(progressed_at) AS progressed_at,
           sum(remaining - deferred) FILTER (WHERE is_released) AS pending,
           sum(remaining - deferred) FILTER (WHERE is_released AND is_unclaimed) AS unclaimed,
           count(*) FILTER (WHERE is_released AND is_unclaimed AND remaining > deferred) AS unclaimed_batches,
           extract(epoch FROM avg(progressed_at - claimed_at)
               FILTER (WHERE lease_token IS NULL AND progressed_at > claimed_at))::float8 AS batch_seconds,
           extract(epoch FROM now() - min(claimed_at)
               FILTER (WHERE NOT is_unclaimed AND remaining > deferred))::float8 AS claimed_seconds,
           greatest(max(flushed_at), max(claimed_at), min(due_at) FILTER (WHERE NOT closed)) AS moved_at
    FROM delivery_batch, LATERAL (SELECT NOT s.rest_held OR last_delivery <= s.first_part AS is_released,
                                         lease_until IS NULL OR lease_until <= now() AS is_unclaimed) each
    WHERE sendout_id = s.id
) b ON true
CROSS JOIN LATERAL (
    SELECT greatest(s.created_at, s.started_at, s.resumed_at, s.next_batch_at, sw.created_at, b.moved_at)
               < now() - make_interval(secs => $4)
           AND NOT EXISTS (SELECT FROM worker w WHERE w.alive_until > now() AND n.role = ANY (w.roles)) AS is_stalled
) l
LEFT JOIN sendout_speed w ON w.sendout_id = s.id AND v.state = 'sending'
ORDER BY s.created_at DESC, s.id DESC;

-- created_at: when a sendout was created
SELECT created_at FROM sendout WHERE id = $1;

-- resumable: interrupted sendouts whose lists all have enough codes now, oldest first
-- $1 is a list that they need, or NULL. If $2, only sendouts with auto-resume are returned. $3 is an id, or NULL. The
-- current shortage setting of each list applies. A sendout is not resumable while an unfinished import may change what
-- its recipients get: by removing codes, or by adding codes that a list with an alternative text lacks. With $2, a sendout
-- whose requested resume waits is not returned. Neither is one whose recipients lack an attribute of the alternative text.
SELECT s.id, m.name AS message, s.auto_resume FROM sendout s JOIN message m ON m.id = s.message_id
WHERE s.state = 'interrupted' AND s.finished_at IS NULL
  AND (NOT $2 OR (s.auto_resume AND NOT EXISTS (SELECT FROM sendout_wait w WHERE w.sendout_id = s.id)))
  AND ($3::uuid IS NULL OR s.id = $3)
  AND ($1::text IS NULL OR EXISTS (
      SELECT FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
      WHERE sl.sendout_id = s.id AND l.name = $1 AND l.deleted_at IS NULL))
  AND NOT EXISTS (
      SELECT FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
      WHERE sl.sendout_id = s.id
        AND (l.deleted_at IS NOT NULL OR (l.shortage = 'pause' AND l.available < sl.needed)
             OR (sl.lacking > 0 AND l.shortage = 'text' AND l.alternative_text = sl.alternative_text)
             OR EXISTS (SELECT FROM import_job j WHERE j.list_id = l.id AND j.finished_at IS NULL
                          AND (j.mode <> 'add' OR l.available < sl.needed))))
ORDER BY s.created_at, s.id;

-- list_rows: the codes that sendouts need of their lists, and the codes that these lists have now
SELECT sl.sendout_id, l.name, l.deleted_at IS NOT NULL AS deleted,
       l.archived_at IS NOT NULL AND l.deleted_at IS NULL AS archived, sl.shortage, sl.needed, sl.reserved, sl.assigned, sl.sent,
       CASE s.state WHEN 'interrupted' THEN greatest(0, sl.needed - l.available) ELSE sl.missing END AS missing, l.available
FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id JOIN sendout s ON s.id = sl.sendout_id
WHERE sl.sendout_id = ANY ($1::uuid[])
ORDER BY l.name;

-- problems: at most $2 refused, uncertain and deferred deliveries after number $3
-- Only batches with such deliveries are read: of 10,000,000 deliveries, one problem would otherwise be found by reading all
-- of them. OFFSET 0 keeps the planner from another order. A batch that was never claimed has no deferred delivery.
SELECT d.number, d.address, d.state, d.attempts, d.reply, d.changed_at
FROM delivery_batch b CROSS JOIN LATERAL (
    SELECT * FROM delivery
    WHERE sendout_id = b.sendout_id AND number BETWEEN greatest(b.first_delivery, $3::integer + 1) AND b.last_delivery
      AND state IN ('refused', 'uncertain', 'deferred')
    OFFSET 0
) d
WHERE b.sendout_id = $1 AND b.last_delivery > $3
  AND (b.refused > 0 OR b.uncertain > 0 OR (b.remaining > 0 AND b.claimed_at IS NOT NULL))
ORDER BY b.number, d.number LIMIT $2;
