-- lists_add_up: in each list, available + reserved + assigned + sent = total, and the counters match the codes
-- A deleted list has no codes and no reserved or assigned ones; its sent codes are not in its total.
SELECT l.name AS list, l.total, l.available, r.coupons, r.free, u.reserved, u.assigned, u.sent
FROM coupon_list l
LEFT JOIN (
    SELECT list_id, count(*) AS coupons, count(*) FILTER (WHERE sendout_id IS NULL) AS free FROM coupon GROUP BY list_id
) counted ON counted.list_id = l.id
CROSS JOIN LATERAL (SELECT coalesce(counted.coupons, 0) AS coupons, coalesce(counted.free, 0) AS free) r
CROSS JOIN LATERAL (
    SELECT coalesce(sum(reserved), 0) AS reserved, coalesce(sum(assigned), 0) AS assigned,
           coalesce(sum(sent), 0) AS sent
    FROM sendout_list WHERE list_id = l.id
) u
WHERE r.coupons <> l.total OR r.free <> l.available + u.reserved
   OR l.available + u.reserved + u.assigned + CASE WHEN l.deleted_at IS NULL THEN u.sent ELSE 0 END <> l.total;

-- codes_exist_once: no code exists twice, in any lists and spellings (checked without the unique index)
-- In a case-sensitive list, codes that differ in case are different codes. Codes that two recipients had got before
-- migration 0006 are left out: `coupons list duplicates` shows them.
WITH counted AS NOT MATERIALIZED (
    SELECT CASE WHEN octet_length(code) = char_length(code) THEN lower(code COLLATE "C") ELSE fold END AS key,
           normalize(code) AS spelling, list_id, sendout_id
    FROM coupon WHERE NOT EXISTS (SELECT FROM duplicate_code d WHERE d.id = coupon.id AND NOT d.removed)
), repeated AS MATERIALIZED (
    SELECT key, min(list_id) <> max(list_id) AS in_lists FROM counted GROUP BY key HAVING count(*) > 1
)
SELECT list, count(*) AS codes, count(sendout_id) AS assigned
FROM (
    SELECT l.name AS list, c.sendout_id, r.in_lists OR l.case_sensitive IS NOT TRUE AS is_equal,
           count(*) OVER (PARTITION BY r.key, c.spelling) AS times
    FROM repeated r JOIN counted c USING (key) LEFT JOIN coupon_list l ON l.id = c.list_id
) found
WHERE is_equal OR times > 1 GROUP BY list;

-- retired_codes_are_gone: no list has a code that a deleted list has sent
-- Codes that migration 0006 left with their recipients are left out: `coupons list duplicates` shows them.
SELECT c.list_id, count(*) AS codes, count(c.sendout_id) AS assigned
FROM coupon c CROSS JOIN retired_code_key k
JOIN retired_code h ON h.hash = retired_code_hash(k.key, coalesce(c.fold, lower(c.code COLLATE "C")))
WHERE EXISTS (SELECT FROM retired_code) AND NOT EXISTS (
    SELECT FROM duplicate_code d WHERE d.id = c.id AND NOT d.removed)
GROUP BY c.list_id;

-- deliveries_have_one_code_of_a_list: no delivery has two codes of one list
SELECT sendout_id, delivery_number, list_id, count(*) AS codes FROM coupon
WHERE sendout_id IS NOT NULL GROUP BY sendout_id, delivery_number, list_id HAVING count(*) > 1;

-- owners_exist: an assigned code belongs to a delivery that may be sent or was sent, in a sendout that uses its list
SELECT c.sendout_id, c.delivery_number, c.list_id, coalesce(d.state, 'no such delivery') AS delivery
FROM coupon c
LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
LEFT JOIN sendout_list sl ON sl.sendout_id = c.sendout_id AND sl.list_id = c.list_id
WHERE c.sendout_id IS NOT NULL AND (d.state IS NULL OR d.state IN ('refused', 'cancelled') OR sl.list_id IS NULL);

-- sendout_lists_add_up: a sendout's assigned and sent counters of a list match the codes of its deliveries
SELECT sl.sendout_id, sl.list_id, sl.reserved, sl.assigned, sl.sent, coalesce(o.owned, 0) AS owned,
       coalesce(o.mailed, 0) AS mailed
FROM sendout_list sl
JOIN coupon_list l ON l.id = sl.list_id AND l.deleted_at IS NULL
LEFT JOIN (
    SELECT c.sendout_id, c.list_id, count(*) AS owned, count(*) FILTER (WHERE d.state = 'sent') AS mailed
    FROM coupon c JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
    GROUP BY c.sendout_id, c.list_id
) o USING (sendout_id, list_id)
WHERE sl.assigned + sl.sent <> coalesce(o.owned, 0) OR sl.sent <> coalesce(o.mailed, 0);

-- mails_have_their_codes: each sent mail has a code of each list that it needs, except lists with an alternative text
-- The codes of a deleted list are deleted too; only their number is known.
SELECT d.sendout_id, d.number, sl.list_id, d.state
FROM delivery d
JOIN sendout_list sl ON sl.sendout_id = d.sendout_id AND sl.shortage = 'pause'
JOIN coupon_list l ON l.id = sl.list_id AND l.deleted_at IS NULL
WHERE d.state IN ('sent', 'uncertain') AND (d.lists IS NULL OR sl.list_id = ANY (d.lists)) AND NOT EXISTS (
    SELECT FROM coupon c
    WHERE c.list_id = sl.list_id AND c.sendout_id = d.sendout_id AND c.delivery_number = d.number);

-- codes_are_needed: a delivery has codes only of lists that its mail needs
SELECT c.sendout_id, c.delivery_number, c.list_id
FROM coupon c JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
WHERE d.lists IS NOT NULL AND c.list_id <> ALL (d.lists);

-- needs_add_up: a sendout needs as many codes of a list as it has deliveries that need the list
SELECT sl.sendout_id, sl.list_id, sl.needed, coalesce(sum(d.deliveries), 0) AS deliveries
FROM sendout_list sl
LEFT JOIN (SELECT sendout_id, lists, count(*) AS deliveries FROM delivery GROUP BY sendout_id, lists) d
    ON d.sendout_id = sl.sendout_id AND (d.lists IS NULL OR sl.list_id = ANY (d.lists))
GROUP BY sl.sendout_id, sl.list_id, sl.needed HAVING sl.needed <> coalesce(sum(d.deliveries), 0);

-- batches_add_up: a batch's counters match its deliveries
SELECT b.sendout_id, b.number, b.remaining, b.deferred, b.sent, b.refused, b.uncertain, b.cancelled, d.*
FROM delivery_batch b
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE state IN ('pending', 'deferred')) AS is_remaining,
           count(*) FILTER (WHERE state = 'deferred') AS is_deferred,
           count(*) FILTER (WHERE state = 'sent') AS is_sent,
           count(*) FILTER (WHERE state = 'refused') AS is_refused,
           count(*) FILTER (WHERE state = 'uncertain') AS is_uncertain,
           count(*) FILTER (WHERE state = 'cancelled') AS is_cancelled
    FROM delivery WHERE sendout_id = b.sendout_id AND number BETWEEN b.first_delivery AND b.last_delivery
) d
WHERE (b.remaining, b.deferred, b.sent, b.refused, b.uncertain, b.cancelled)
   <> (d.is_remaining, d.is_deferred, d.is_sent, d.is_refused, d.is_uncertain, d.is_cancelled);

-- in_flight_is_leased: a mail in flight is a remaining delivery of a leased batch
SELECT b.sendout_id, b.number, i.number AS delivery, d.state
FROM delivery_batch b
CROSS JOIN LATERAL unnest(b.in_flight) AS i (number)
LEFT JOIN delivery d ON d.sendout_id = b.sendout_id AND d.number = i.number
WHERE d.state IS NULL OR d.state NOT IN ('pending', 'deferred')
   OR i.number NOT BETWEEN b.first_delivery AND b.last_delivery OR b.lease_token IS NULL;

-- ended_sendouts_add_up: every recipient of an ended sendout is in exactly one final state
SELECT s.id AS sendout, s.state, s.recipients, d.deliveries, d.final
FROM sendout s
CROSS JOIN LATERAL (
    SELECT count(*) AS deliveries,
           count(*) FILTER (WHERE state IN ('sent', 'refused', 'uncertain', 'cancelled')) AS final
    FROM delivery WHERE sendout_id = s.id
) d
WHERE s.recipients <> d.deliveries OR (s.finished_at IS NOT NULL AND d.final <> d.deliveries);

-- interrupted_sent_nothing: an interrupted sendout has no codes and has handed over no mail
SELECT s.id AS sendout, count(d.number) AS begun, max(sl.reserved + sl.assigned + sl.sent) AS held
FROM sendout s
LEFT JOIN sendout_list sl ON sl.sendout_id = s.id AND sl.reserved + sl.assigned + sl.sent > 0
LEFT JOIN delivery d ON d.sendout_id = s.id AND d.state <> 'pending'
WHERE s.state = 'interrupted' GROUP BY s.id HAVING count(d.number) > 0 OR count(sl.list_id) > 0;

-- only_unprepared_sendouts_wait: a sendout that waits for imports is queued, interrupted or paused
SELECT s.id AS sendout, s.state FROM sendout_wait w JOIN sendout s ON s.id = w.sendout_id
WHERE s.state NOT IN ('queued', 'interrupted', 'paused');

-- ended_sendouts_hold_nothing: an ended sendout has no open batch and no reserved codes
SELECT s.id AS sendout, s.state, count(b.number) AS open_batches, count(sl.list_id) AS lists
FROM sendout s
LEFT JOIN delivery_batch b ON b.sendout_id = s.id AND NOT b.closed
LEFT JOIN sendout_list sl ON sl.sendout_id = s.id AND sl.reserved > 0
WHERE s.finished_at IS NOT NULL
GROUP BY s.id HAVING count(b.number) > 0 OR count(sl.list_id) > 0;

-- removed_is_kept: what an import has removed is kept for 7 days, so that it can be undone
-- Imports that an earlier version began kept nothing. What was removed from a deleted list or group is deleted.
SELECT j.id AS import, j.removed, k.kept
FROM import_job j
LEFT JOIN coupon_list l ON l.id = j.list_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(lines), 0)::bigint AS kept FROM import_removal WHERE import_id = j.id
) k
WHERE j.removed > 0 AND j.first_id IS NOT NULL AND coalesce(j.finished_at > now() - interval '7 days', true)
  AND (j.group_id IS NOT NULL OR (j.list_id IS NOT NULL AND l.deleted_at IS NULL)) AND k.kept <> j.removed;
