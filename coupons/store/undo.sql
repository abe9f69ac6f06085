-- undone: the import $1, as far as its undo $3 depends on it (NULL: an undo that does not exist yet). is_kept: whether what
-- it removed is still kept, for $2 seconds. earlier: the last finished undo before $3, which has restored what it could;
-- added and removed are what earlier undos have left
SELECT j.id, l.name AS list, j.group_name AS "group", j.finished_at IS NOT NULL AS has_ended, j.state, j.first_id,
       j.added - undos.taken_back AS added, j.existing,
       CASE WHEN undos.earlier IS NULL THEN j.removed ELSE 0 END AS removed,
       j.added + j.removed + j.existing > 0 AS has_changed, undos.earlier, undos.unfinished,
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

-- keepers: the imports after import $1 that kept codes or recipients of its list or group and that were undone, up to the first
-- one that was not undone; and the last id that a code of import $1 surely has, before the codes of the next import. An undo
-- can be undone: the last one of these undos decides
WITH RECURSIVE later AS (
    SELECT x.id, x.first_id, x.existing, x.created_at FROM import_job j
    JOIN import_job x ON (x.list_id = j.list_id OR x.group_id = j.group_id) AND x.first_id > j.first_id
    WHERE j.id = $1
), undos AS (
    SELECT id AS keeper, id, created_at, false AS is_undone FROM later WHERE existing > 0
    UNION ALL
    SELECT o.keeper, u.id, u.created_at, NOT o.is_undone
    FROM undos o JOIN import_job u ON u.mode = 'undo' AND u.source = 'import:' || o.id AND u.state = 'finished'
), last_undo AS (
    SELECT DISTINCT ON (keeper) keeper, is_undone FROM undos ORDER BY keeper, created_at DESC
), kept AS (
    SELECT l.id, bool_and(u.is_undone) OVER (ORDER BY l.first_id) AS is_undone FROM later l JOIN last_undo u ON u.keeper = l.id
)
SELECT ARRAY(SELECT id FROM kept WHERE is_undone) AS keepers,
       coalesce((SELECT min(first_id) FROM later), 9223372036854775807) AS last_id;

-- next_removal: the next row of codes or recipients that import $1 removed, after row $2
SELECT number, texts FROM import_removal WHERE import_id = $1 AND number > $2 ORDER BY number LIMIT 1;

-- count_kept: how much of what import $1 removed is kept
SELECT coalesce(sum(lines), 0)::bigint FROM import_removal WHERE import_id = $1;

-- begin_taking_back: begin to take back what import $3 added: about how much that is. From now on the rate is that of the
-- removal. No row if the lease is lost
UPDATE import_job j
SET to_remove = j.removed + CASE
        WHEN j.list_id IS NOT NULL THEN (
            SELECT count(*) FROM coupon WHERE list_id = j.list_id AND sendout_id IS NULL AND id > $4
              AND (import_id = $3 OR (import_id = ANY ($5::uuid[]) AND id <= $6)))
        ELSE (SELECT count(*) FROM recipient
              WHERE group_id = j.group_id AND added_by = $3 AND (import_id = $3 OR import_id = ANY ($5))) END,
    claimed_at = clock_timestamp(), claimed_lines = j.removed, progressed_at = NULL
WHERE id = $1 AND lease_token = $2
RETURNING id;

-- not_taken_back: of the codes that import $2 added to list $1, the numbers of those that the list still has. Each part has
-- a partial index of its own
SELECT (SELECT count(*) FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND id > $3
        AND (import_id = $2 OR (import_id = ANY ($4::uuid[]) AND id <= $5))) AS reserved,
       count(*) FILTER (WHERE d.state IS DISTINCT FROM 'sent') AS assigned,
       count(*) FILTER (WHERE d.state = 'sent') AS sent
FROM coupon c LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
WHERE c.list_id = $1 AND c.sendout_id IS NOT NULL AND c.id > $3
  AND (c.import_id = $2 OR (c.import_id = ANY ($4) AND c.id <= $5));

-- delete_old: delete at most $2 rows of imports that ended $1 seconds ago, unless an unfinished undo needs them
DELETE FROM import_removal WHERE (import_id, number) IN (
    SELECT r.import_id, r.number FROM import_removal r JOIN import_job j ON j.id = r.import_id
    WHERE j.finished_at < now() - make_interval(secs => $1)
      AND NOT EXISTS (SELECT FROM import_job u WHERE u.source = 'import:' || j.id AND u.finished_at IS NULL)
    LIMIT $2);
