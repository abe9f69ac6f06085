-- undone: the import $1, as far as its undo $3 depends on it (NULL: an undo that does not exist yet). is_kept: whether what
-- it removed is still kept, for $2 seconds. earlier: the last finished undo before $3, which has restored what it could;
-- added and removed are what earlier undos have left
SELECT j.id, l.name AS list, j.group_name AS "group", j.finished_at IS NOT NULL AS has_ended, j.state, j.first_id,
       j.added - undos.taken_back AS added, j.existing,
       CASE WHEN undos.earlier IS NULL THEN j.removed ELSE 0 END AS removed,
       j.added + j.removed > 0 AS has_changed, undos.earlier, undos.unfinished,
       coalesce(j.finished_at > now() - make_interval(secs => $2), true) AS is_kept,
       l.deleted_at IS NOT NULL OR (j.list_id IS NULL AND j.group_id IS NULL) AS is_gone
FROM import_job j LEFT JOIN coupon_list l ON l.id = j.list_id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(u.removed), 0)::bigint AS taken_back,
           (array_agg(u.id ORDER BY u.created_at DESC, u.id DESC) FILTER (WHERE u.state = 'finished'))[1] AS earlier,
           (array_agg(u.id ORDER BY u.created_at, u.id) FILTER (WHERE u.finished_at IS NULL))[1] AS unfinished
    FROM import_job u
    WHERE u.mode = 'undo' AND u.source = 'import:' || j.id
      AND ($3::uuid IS NULL OR (u.created_at, u.id) < (SELECT created_at, id FROM import_job WHERE id = $3))) undos
WHERE j.id = $1;

-- next_removal: the next row of codes or recipients that import $1 removed, after row $2
SELECT number, texts FROM import_removal WHERE import_id = $1 AND number > $2 ORDER BY number LIMIT 1;

-- begin_taking_back: begin to take back what import $3 added: about how much that is. From now on the rate is that of the
-- removal. No row if the lease is lost
UPDATE import_job j
SET to_remove = j.removed + CASE
        WHEN j.list_id IS NOT NULL THEN (SELECT count(*) FROM coupon WHERE list_id = j.list_id AND sendout_id IS NULL
                                         AND import_id = $3 AND id > $4)
        ELSE (SELECT count(*) FROM recipient WHERE group_id = j.group_id AND import_id = $3 AND added) END,
    claimed_at = clock_timestamp(), claimed_lines = j.removed, progressed_at = NULL
WHERE id = $1 AND lease_token = $2
RETURNING id;

-- not_taken_back: of the codes that import $2 added to list $1, the numbers of those that the list still has. Each part has
-- a partial index of its own
SELECT (SELECT count(*) FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND import_id = $2 AND id > $3) AS reserved,
       count(*) FILTER (WHERE d.state IS DISTINCT FROM 'sent') AS assigned,
       count(*) FILTER (WHERE d.state = 'sent') AS sent
FROM coupon c LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
WHERE c.list_id = $1 AND c.sendout_id IS NOT NULL AND c.import_id = $2 AND c.id > $3;

-- delete_old: delete at most $2 rows of imports that ended $1 seconds ago, unless an unfinished undo needs them
DELETE FROM import_removal WHERE (import_id, number) IN (
    SELECT r.import_id, r.number FROM import_removal r JOIN import_job j ON j.id = r.import_id
    WHERE j.finished_at < now() - make_interval(secs => $1)
      AND NOT EXISTS (SELECT FROM import_job u WHERE u.source = 'import:' || j.id AND u.finished_at IS NULL)
    LIMIT $2);
