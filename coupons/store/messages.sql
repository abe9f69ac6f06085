-- lock_name: wait until no other transaction saves the message $1, so that two of them do not create the same version
SELECT pg_advisory_xact_lock(hashtextextended('message ' || $1, 0));

-- save: create the next version of a message
INSERT INTO message (name, version, sender, reply_to, subject, text, html, attributes, headers)
SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4, $5, $6, $7, $8 FROM message WHERE name = $1
RETURNING id, version;

-- name_lists: store the lists that a version refers to
INSERT INTO message_list (message_id, list_id) SELECT $1, unnest($2::bigint[]);

-- first_deleted: a list of a version that is deleted, or no row
SELECT l.name FROM message_list ml JOIN coupon_list l ON l.id = ml.list_id
WHERE ml.message_id = $1 AND l.deleted_at IS NOT NULL LIMIT 1;

-- add_file: store an attachment or inline image of a version
INSERT INTO message_file (message_id, name, content_type, inline, content) VALUES ($1, $2, $3, $4, $5);

-- files: the files of a version
SELECT name, content_type, inline, content FROM message_file WHERE message_id = $1 ORDER BY name;

-- rows: the newest version of each message with a name in $1 (NULL: of all), or the version that sendout $2 mails
SELECT DISTINCT ON (m.name) m.id, m.name, m.version, m.sender, m.reply_to, m.subject, m.text, m.html, m.attributes,
       m.headers, m.created_at,
       ARRAY(SELECT l.name FROM message_list ml JOIN coupon_list l ON l.id = ml.list_id
             WHERE ml.message_id = m.id ORDER BY l.name) AS lists,
       ARRAY(SELECT l.name FROM message_list ml JOIN coupon_list l ON l.id = ml.list_id
             WHERE ml.message_id = m.id AND l.deleted_at IS NOT NULL ORDER BY l.name) AS deleted_lists,
       ARRAY(SELECT mf.name FROM message_file mf WHERE mf.message_id = m.id ORDER BY mf.name) AS files
FROM message m
WHERE ($1::text[] IS NULL OR m.name = ANY ($1))
  AND (m.deleted_at IS NULL OR $2::uuid IS NOT NULL)
  AND ($2::uuid IS NULL OR m.id = (SELECT message_id FROM sendout WHERE id = $2))
ORDER BY m.name, m.version DESC;

-- lock_versions: lock the versions of message $1 until the transaction ends
SELECT id FROM message WHERE name = $1 AND deleted_at IS NULL ORDER BY id FOR UPDATE;

-- user: an unfinished sendout of one of the versions $1
SELECT id FROM sendout WHERE message_id = ANY ($1::bigint[]) AND finished_at IS NULL LIMIT 1;

-- mailed: those of the versions $1 that sendouts have mailed
SELECT DISTINCT message_id FROM sendout WHERE message_id = ANY ($1::bigint[]);

-- delete_files: delete the files of the versions $1
DELETE FROM message_file WHERE message_id = ANY ($1::bigint[]);

-- delete_lists: delete the references of the versions $1 to lists
DELETE FROM message_list WHERE message_id = ANY ($1::bigint[]);

-- delete: delete the versions $1, which no sendout has mailed
DELETE FROM message WHERE id = ANY ($1::bigint[]);

-- bury: mark the versions $1 as deleted; their rows stay, because sendouts have mailed them
UPDATE message SET deleted_at = now() WHERE id = ANY ($1::bigint[]);
