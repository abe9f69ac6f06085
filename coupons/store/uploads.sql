-- begin: create an upload, which is incomplete at first
INSERT INTO upload (id, name) VALUES ($1, $2);

-- add_chunk: store the next piece of an upload
INSERT INTO upload_chunk (upload_id, number, data) VALUES ($1, $2, $3);

-- complete: mark an upload as complete, after all its pieces are stored
UPDATE upload SET size_bytes = $2 WHERE id = $1;

-- find: a complete upload
SELECT id, name, size_bytes FROM upload WHERE id = $1 AND size_bytes IS NOT NULL;

-- chunk: one piece of an upload
SELECT data FROM upload_chunk WHERE upload_id = $1 AND number = $2;

-- delete: delete an upload, unless an unfinished import needs it
DELETE FROM upload u WHERE id = $1
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);

-- delete_unless_kept: delete an upload, unless an unfinished import needs it or it is kept for a retry
DELETE FROM upload u WHERE id = $1 AND expires_at IS NULL
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);

-- keep: keep the upload of a failed import for $2 seconds
UPDATE upload SET expires_at = now() + make_interval(secs => $2) WHERE id = $1;

-- delete_stale: delete uploads, complete or not, that are older than $1 seconds or have expired, and that no unfinished
-- import needs
DELETE FROM upload u WHERE (created_at < now() - make_interval(secs => $1) OR expires_at < now())
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);
