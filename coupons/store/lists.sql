-- create: create a list; no row if the name is taken
INSERT INTO coupon_list (name, description, shortage, alternative_text, preview_text, case_sensitive)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING
RETURNING id;

-- change: change description, shortage setting and texts of a list; NULL keeps a value
UPDATE coupon_list
SET description = coalesce($2, description), shortage = coalesce($3, shortage),
    alternative_text = coalesce($4, alternative_text), preview_text = coalesce($5, preview_text)
WHERE name = $1 AND deleted_at IS NULL;

-- rows: lists with their counters; $1 names, or NULL for all; $2 includes archived lists
SELECT l.id, l.name, l.description, l.shortage, l.alternative_text, l.preview_text, l.case_sensitive, l.archived_at,
       l.created_at,
       l.total, l.available, used.reserved, used.assigned, used.sent
FROM coupon_list l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(sl.reserved), 0)::bigint AS reserved, coalesce(sum(sl.assigned), 0)::bigint AS assigned,
           coalesce(sum(sl.sent), 0)::bigint AS sent
    FROM sendout_list sl WHERE sl.list_id = l.id
) used
WHERE l.deleted_at IS NULL AND ($1::text[] IS NULL OR l.name = ANY ($1)) AND ($2 OR l.archived_at IS NULL)
ORDER BY l.name;

-- copy: create an empty list with the settings of another list; no row if the name is taken
INSERT INTO coupon_list (name, description, shortage, alternative_text, preview_text, case_sensitive)
SELECT $2, description, shortage, alternative_text,
       CASE WHEN preview_text = $1 || $3 THEN $2 || $3 ELSE preview_text END, case_sensitive
FROM coupon_list WHERE name = $1 AND deleted_at IS NULL
ON CONFLICT (name) WHERE deleted_at IS NULL DO NOTHING
RETURNING id;

-- archive: hide a list and exclude it from new sendouts; no row if it is archived already
UPDATE coupon_list SET archived_at = now() WHERE name = $1 AND deleted_at IS NULL AND archived_at IS NULL RETURNING id;

-- under_way: the unfinished sendouts whose message prints coupons of list $1, oldest first
SELECT s.id, m.name AS message, s.state
FROM message_list ml JOIN sendout s USING (message_id) JOIN message m ON m.id = s.message_id
WHERE ml.list_id = $1 AND s.finished_at IS NULL
ORDER BY s.created_at, s.id;

-- restore: undo the archiving of a list
UPDATE coupon_list SET archived_at = NULL WHERE name = $1 AND deleted_at IS NULL AND archived_at IS NOT NULL RETURNING id;

-- no_imports: keep imports from committing chunks into any list until the transaction ends
-- Imports after this transaction find the retired codes of the deleted list.
SELECT pg_advisory_xact_lock(hashtextextended('retired_code', 0));

-- lock: lock the list's row until the transaction ends
SELECT id, archived_at FROM coupon_list WHERE name = $1 AND deleted_at IS NULL FOR UPDATE;

-- users: sendouts that prevent a deletion (one of each kind), whether an import does, whether a message refers to the list
-- A sendout that is not prepared yet has no row in sendout_list, but its message refers to the list.
SELECT (SELECT s.id FROM sendout s JOIN message_list ml USING (message_id)
        WHERE ml.list_id = $1 AND s.finished_at IS NULL LIMIT 1) AS unfinished,
       (SELECT sendout_id FROM sendout_list WHERE list_id = $1 AND assigned > 0 LIMIT 1) AS uncertain,
       EXISTS (SELECT FROM import_job WHERE list_id = $1 AND finished_at IS NULL) AS is_filled,
       EXISTS (SELECT FROM message_list WHERE list_id = $1) AS is_named;

-- remember: retire the assigned codes of a list
-- The hashes are sorted: two lists that are deleted at the same time lock rows in one order, and the index is filled in
-- its own order.
WITH spent AS (
    SELECT retired_code_hash(key, coalesce(fold, lower(code COLLATE "C"))) AS hash FROM coupon CROSS JOIN retired_code_key
    WHERE list_id = $1 AND sendout_id IS NOT NULL
), remembered AS (
    INSERT INTO retired_code (hash) SELECT DISTINCT hash FROM spent ORDER BY hash ON CONFLICT DO NOTHING
)
SELECT count(*) FROM spent;

-- delete_coupons: delete all codes of a list; each partial index finds a part of them
WITH free AS (DELETE FROM coupon WHERE list_id = $1 AND sendout_id IS NULL)
DELETE FROM coupon WHERE list_id = $1 AND sendout_id IS NOT NULL;

-- delete_duplicates: delete the list's duplicates that migration 0006 has reported
DELETE FROM duplicate_code WHERE list_id = $1;

-- delete_rejections: delete rejected lines of the list's imports, because they are codes as well
DELETE FROM import_rejection WHERE import_id IN (SELECT id FROM import_job WHERE list_id = $1);

-- delete_uploads: delete the files of failed imports, which are kept for a retry, unless an unfinished import needs them
DELETE FROM upload u WHERE 'upload:' || u.id IN (SELECT source FROM import_job WHERE list_id = $1)
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);

-- delete_removals: delete what the list's imports removed and an undo could restore, because these are codes as well
DELETE FROM import_removal WHERE import_id IN (SELECT id FROM import_job WHERE list_id = $1);

-- bury: mark a list as deleted; its row stays because messages and sendouts refer to it
UPDATE coupon_list SET deleted_at = now(), total = 0, available = 0 WHERE id = $1;

-- delete: delete a list that no message refers to; its imports are deleted with it
DELETE FROM coupon_list WHERE id = $1;

-- count_duplicates: for list $1 (NULL: for each list), the number of removed duplicates and of those that their recipients
-- may have
SELECT l.name AS list, count(*) FILTER (WHERE d.removed) AS removed, count(*) FILTER (WHERE NOT d.removed) AS kept
FROM duplicate_code d JOIN coupon_list l ON l.id = d.list_id
WHERE $1::text IS NULL OR l.name = $1 GROUP BY l.name ORDER BY l.name;

-- list_duplicates: the first $2 duplicates of list $1 (NULL: all duplicates; of all lists)
SELECT l.name AS list, d.code, d.state, d.removed, f.name AS first_list
FROM duplicate_code d JOIN coupon_list l ON l.id = d.list_id LEFT JOIN coupon_list f ON f.id = d.first_list_id AND f.deleted_at IS NULL
WHERE $1::text IS NULL OR l.name = $1
ORDER BY l.name, d.id LIMIT $2;

-- take: subtract the granted amounts from the available codes of the lists
UPDATE coupon_list l SET available = l.available - granted.amount
FROM unnest($1::bigint[], $2::bigint[]) AS granted (list_id, amount)
WHERE l.id = granted.list_id;

-- alternative_texts: the alternative texts that mails of message version $1 may print
SELECT l.alternative_text FROM message_list ml JOIN coupon_list l ON l.id = ml.list_id
WHERE ml.message_id = $1 AND l.shortage = 'text' AND l.deleted_at IS NULL;
