-- unfinished: the unfinished imports into the lists of message $1 and into group $2, oldest first
SELECT id, group_id IS NOT NULL AS is_into_group FROM import_job
WHERE finished_at IS NULL
  AND (group_id = $2 OR list_id IN (SELECT list_id FROM message_list WHERE message_id = $1))
ORDER BY created_at, id;

-- imports: the imports with the ids $1 that have not finished, in this order
SELECT a.id, c.type AS command_type, c.rejection_reason, j.state, coalesce(l.name, g.name) AS target, NULL::integer AS percent,
       false AS is_late
FROM unnest($1::uuid[]) WITH ORDINALITY a (id, position)
LEFT JOIN command c ON c.id = a.id
LEFT JOIN import_job j ON j.id = a.id
LEFT JOIN coupon_list l ON l.id = j.list_id
LEFT JOIN recipient_group g ON g.id = j.group_id
WHERE j.state IS DISTINCT FROM 'finished'
ORDER BY a.position;

-- begin: let sendout $1 wait, in place of an earlier wait, because of command $2 with the body $3: the imports $4 must
-- finish, and the imports $5 must end. Imports that have not arrived within $6 seconds are not awaited any longer
INSERT INTO sendout_wait (sendout_id, command_id, body, after, unfinished, arrive_until)
VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
ON CONFLICT (sendout_id) DO UPDATE
SET command_id = excluded.command_id, body = excluded.body, after = excluded.after, unfinished = excluded.unfinished,
    arrive_until = excluded.arrive_until, created_at = excluded.created_at;

-- exists: whether the sendout waits
SELECT EXISTS (SELECT FROM sendout_wait WHERE sendout_id = $1);

-- rows: for each of the sendouts $1 that wait (NULL: all), the first $2 imports that it waits for, or one row without an
-- import if each has ended. Imports that cannot finish are first. No row while the restore guard blocks sending, if $3
SELECT w.sendout_id, i.*
FROM sendout_wait w
LEFT JOIN LATERAL (
    SELECT a.id, c.type AS command_type, c.rejection_reason, j.state, coalesce(l.name, g.name) AS target,
           (100 * least(j.read_bytes, j.total_bytes) / nullif(j.total_bytes, 0))::integer AS percent,
           c.id IS NULL AND j.id IS NULL AND w.arrive_until < now() AS is_late,
           count(*) OVER () AS total
    FROM (SELECT unnest(w.after), true UNION ALL SELECT unnest(w.unfinished), false) a (id, must_finish)
    LEFT JOIN command c ON c.id = a.id
    LEFT JOIN import_job j ON j.id = a.id
    LEFT JOIN coupon_list l ON l.id = j.list_id
    LEFT JOIN recipient_group g ON g.id = j.group_id
    WHERE CASE WHEN a.must_finish THEN j.state IS DISTINCT FROM 'finished' ELSE j.finished_at IS NULL AND j.id IS NOT NULL END
    ORDER BY j.finished_at IS NOT NULL OR (j.id IS NULL AND (c.id IS NOT NULL OR w.arrive_until < now())) DESC,
             j.state = 'running' DESC NULLS LAST, j.created_at, a.id
    LIMIT $2
) i ON true
WHERE ($1::uuid[] IS NULL OR w.sendout_id = ANY ($1)) AND (NOT $3 OR restore_guard_accepted())
ORDER BY w.created_at, w.sendout_id;

-- remove: end the wait of a sendout
DELETE FROM sendout_wait WHERE sendout_id = $1;

-- reject: reject the command of the wait of sendout $1, which was accepted before, for the reason $2, and end the wait
WITH ended AS (
    DELETE FROM sendout_wait WHERE sendout_id = $1 RETURNING command_id, body
), rejected AS (
    UPDATE command SET rejection_reason = $2 FROM ended WHERE id = ended.command_id
)
INSERT INTO dead_letter (command_id, body, reason) SELECT command_id, body, $2 FROM ended;

-- has_dead_letters: whether rejected commands are not in the dead queue yet
SELECT EXISTS (SELECT FROM dead_letter);

-- take_dead_letter: remove and return a rejected command that no other worker is publishing
DELETE FROM dead_letter
WHERE command_id = (SELECT command_id FROM dead_letter FOR UPDATE SKIP LOCKED LIMIT 1)
RETURNING command_id, body, reason;
