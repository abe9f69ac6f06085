-- begin: a file on its way to a worker
INSERT INTO upload (id, name) VALUES ($1, $2);

-- add_chunk: its next piece
INSERT INTO upload_chunk (upload_id, number, data) VALUES ($1, $2, $3);

-- complete: it is whole, and may be read
UPDATE upload SET size_bytes = $2 WHERE id = $1;

-- find: a whole one
SELECT id, name, size_bytes FROM upload WHERE id = $1 AND size_bytes IS NOT NULL;

-- chunk: one piece of it
SELECT data FROM upload_chunk WHERE upload_id = $1 AND number = $2;

-- drop: it is no longer needed, unless another import is still to read it
DELETE FROM upload u WHERE id = $1
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);

-- drop_stale: given up on their way, or never named in a command
DELETE FROM upload u WHERE created_at < now() - make_interval(secs => $1)
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);
