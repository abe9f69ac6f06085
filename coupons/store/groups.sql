-- rows: groups with the number of their recipients; $1 names, or NULL for all
SELECT g.id, g.name, g.attributes, g.created_at,
       (SELECT count(*) FROM recipient r WHERE r.group_id = g.id) AS recipients
FROM recipient_group g
WHERE $1::text[] IS NULL OR g.name = ANY ($1)
ORDER BY g.name;

-- extend: add attributes that recipients of the group may have
UPDATE recipient_group SET attributes = ARRAY(SELECT DISTINCT unnest(attributes || $2::text[]) ORDER BY 1) WHERE id = $1;

-- audience: the data of a group that a sendout needs
SELECT id, attributes, EXISTS (SELECT FROM recipient WHERE group_id = recipient_group.id) AS has_recipients
FROM recipient_group WHERE name = $1;

-- known_attributes: the attributes of all groups
SELECT DISTINCT unnest(attributes) AS name FROM recipient_group ORDER BY 1;

-- id: the id of the group $1
SELECT id FROM recipient_group WHERE name = $1;

-- lock: lock the group with the id $1 until the transaction ends
SELECT id FROM recipient_group WHERE id = $1 FOR UPDATE;

-- lock_of_import: lock the group of import $1, before the import itself, in the order of the commands that import into it
SELECT FROM recipient_group WHERE id = (SELECT group_id FROM import_job WHERE id = $1) FOR UPDATE;

-- delete_if_unused: delete the group of the failed or cancelled import $1 if no import has filled it, and nothing uses it
DELETE FROM recipient_group g
WHERE g.id = (SELECT group_id FROM import_job WHERE id = $1)
  AND NOT EXISTS (SELECT FROM recipient r WHERE r.group_id = g.id)
  AND NOT EXISTS (SELECT FROM import_job j WHERE j.group_id = g.id AND j.state NOT IN ('failed', 'cancelled'))
  AND NOT EXISTS (SELECT FROM sendout s WHERE s.group_id = g.id);

-- users: an unfinished sendout to group $1 with the name $2, and an unfinished import into it
SELECT (SELECT id FROM sendout WHERE group_id = $1 AND finished_at IS NULL
        UNION ALL SELECT id FROM sendout WHERE finished_at IS NULL AND group_id IS NULL AND group_name = $2 LIMIT 1) AS sendout,
       (SELECT id FROM import_job WHERE group_id = $1 AND finished_at IS NULL LIMIT 1) AS import;

-- leave_sendouts: the sendouts to group $1 keep its name $2
-- All have ended, or are sending again since a moment, because of a retry: that needs the copied recipients only.
UPDATE sendout SET group_id = NULL, group_name = $2 WHERE group_id = $1;

-- delete_rejections: delete rejected lines of the group's imports, because they contain addresses
DELETE FROM import_rejection WHERE import_id IN (SELECT id FROM import_job WHERE group_id = $1);

-- delete_uploads: delete the files of failed imports, which are kept for a retry, unless an unfinished import needs them
DELETE FROM upload u WHERE 'upload:' || u.id IN (SELECT source FROM import_job WHERE group_id = $1)
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);

-- delete_removals: delete the recipients that the group's imports removed and an undo could restore
DELETE FROM import_removal WHERE import_id IN (SELECT id FROM import_job WHERE group_id = $1);

-- delete_recipients: delete all recipients of a group
DELETE FROM recipient WHERE group_id = $1;

-- delete_late_recipients: delete the recipients of imports that have ended since this transaction began, if there are any
DELETE FROM recipient
WHERE group_id = $1 AND EXISTS (SELECT FROM import_job j WHERE j.group_id = $1 AND j.finished_at >= now());

-- delete: delete a group; its imports and sendouts keep its name
DELETE FROM recipient_group WHERE id = $1;
