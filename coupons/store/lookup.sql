-- by_address: $2 mails to an address with their codes, newest first, and only those of sendouts before the sendout $4 that
-- was created at $3
SELECT s.id AS sendout, s.created_at, m.name AS message, d.number, d.address, d.state, d.attempts, d.reply, d.changed_at,
       coalesce((SELECT jsonb_object_agg(l.name, c.code)
                 FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
                 JOIN coupon c ON c.list_id = sl.list_id AND c.sendout_id = d.sendout_id AND c.delivery_number = d.number
                 WHERE sl.sendout_id = d.sendout_id), '{}') AS codes,
       ARRAY(SELECT l.name FROM sendout_list sl JOIN coupon_list l ON l.id = sl.list_id
             WHERE sl.sendout_id = d.sendout_id AND l.deleted_at IS NOT NULL ORDER BY l.name) AS deleted_lists
FROM delivery d
JOIN sendout s ON s.id = d.sendout_id
JOIN message m ON m.id = s.message_id
WHERE d.address_key = $1 AND ($4::uuid IS NULL OR (s.created_at, s.id) < ($3::timestamptz, $4))
ORDER BY s.created_at DESC, s.id DESC LIMIT $2;

-- created_at: when a sendout was created
SELECT created_at FROM sendout WHERE id = $1;

-- by_code: the codes with fold $1 and their recipients; a row without a list if a deleted list's code was sent
-- A hash from before migration 0006 is of one spelling: the spellings $2 are compared.
SELECT l.name AS list, c.code, c.sendout_id AS sendout, m.name AS message, d.address, d.state, d.changed_at
FROM coupon c
JOIN coupon_list l ON l.id = c.list_id
LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
LEFT JOIN sendout s ON s.id = c.sendout_id
LEFT JOIN message m ON m.id = s.message_id
WHERE coalesce(c.fold, lower(c.code COLLATE "C")) = $1
UNION ALL
SELECT NULL, NULL, NULL, NULL, NULL, 'sent', NULL FROM retired_code_key
WHERE EXISTS (SELECT FROM retired_code WHERE hash = retired_code_hash(key, $1))
   OR EXISTS (SELECT FROM retired_spelling
              WHERE hash = ANY (ARRAY(SELECT retired_code_hash(key, unnest($2::text[])))))
ORDER BY list, code;

-- troubled: at most $3 deliveries after number $2 that a relay did not accept at the first attempt
SELECT number FROM (
    (SELECT number FROM delivery WHERE sendout_id = $1 AND number > $2 AND state = 'refused' ORDER BY number LIMIT $3)
    UNION
    (SELECT DISTINCT number FROM delivery_attempt WHERE sendout_id = $1 AND number > $2 ORDER BY number LIMIT $3)
) troubled
ORDER BY number LIMIT $3;

-- answers: the replies to all attempts of the deliveries $2
-- The reply to the last attempt is stored with the delivery, and sometimes also as a row of delivery_attempt. Attempts
-- before a correction of the address have their own address.
SELECT a.number, coalesce(a.address, d.address) AS address, a.attempt, a.outcome, a.reply, a.at
FROM delivery_attempt a JOIN delivery d USING (sendout_id, number)
WHERE a.sendout_id = $1 AND a.number = ANY ($2::integer[])
UNION ALL
SELECT d.number, d.address, d.attempts, d.state, d.reply, d.changed_at
FROM delivery d
WHERE d.sendout_id = $1 AND d.number = ANY ($2::integer[]) AND d.reply IS NOT NULL
  AND NOT EXISTS (SELECT FROM delivery_attempt a
                  WHERE a.sendout_id = $1 AND a.number = d.number AND a.attempt = d.attempts)
ORDER BY number, attempt;
