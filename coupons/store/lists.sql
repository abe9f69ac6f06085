-- create: a list; no row if the name is taken
INSERT INTO coupon_list (name, description, shortage, alternative_text, preview_text)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- change: description, shortage setting and texts; NULL leaves one as it is
UPDATE coupon_list
SET description = coalesce($2, description), shortage = coalesce($3, shortage),
    alternative_text = coalesce($4, alternative_text), preview_text = coalesce($5, preview_text)
WHERE name = $1;

-- rows: lists with their coupons in numbers; $1 names, or NULL for all; $2 with archived ones
SELECT l.id, l.name, l.description, l.shortage, l.alternative_text, l.preview_text, l.archived_at, l.created_at,
       l.total, l.available, held.promised - held.bound AS promised, held.bound - held.sent AS bound, held.sent
FROM coupon_list l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(sl.promised), 0)::bigint AS promised, coalesce(sum(sl.bound), 0)::bigint AS bound,
           coalesce(sum(sl.sent), 0)::bigint AS sent
    FROM sendout_list sl WHERE sl.list_id = l.id
) held
WHERE ($1::text[] IS NULL OR l.name = ANY ($1)) AND ($2 OR l.archived_at IS NULL)
ORDER BY l.name;

-- copy: a new, empty list with another one's settings
INSERT INTO coupon_list (name, description, shortage, alternative_text, preview_text)
SELECT $2, description, shortage, alternative_text,
       CASE WHEN preview_text = $1 || $3 THEN $2 || $3 ELSE preview_text END
FROM coupon_list WHERE name = $1
ON CONFLICT (name) DO NOTHING
RETURNING id;

-- archive: out of the listings and out of new sendouts; refused while a sendout needs it
UPDATE coupon_list l SET archived_at = now()
WHERE name = $1 AND archived_at IS NULL AND NOT EXISTS (
    SELECT FROM sendout_list sl JOIN sendout s ON s.id = sl.sendout_id
    WHERE sl.list_id = l.id AND s.finished_at IS NULL)
RETURNING id;

-- restore: undo archive
UPDATE coupon_list SET archived_at = NULL WHERE name = $1 AND archived_at IS NOT NULL RETURNING id;

-- lock: the list's row, until the transaction ends
SELECT id, name, total, available, archived_at FROM coupon_list WHERE name = $1 FOR UPDATE;

-- users: what keeps a list from being deleted
SELECT (SELECT count(DISTINCT m.name) FROM message_list ml JOIN message m ON m.id = ml.message_id
        WHERE ml.list_id = $1) AS messages,
       (SELECT count(*) FROM import_job WHERE list_id = $1 AND finished_at IS NULL) AS imports;

-- delete_coupons: of a list that is going away
DELETE FROM coupon WHERE list_id = $1;

-- delete: the list; its imports go with it
DELETE FROM coupon_list WHERE id = $1;
