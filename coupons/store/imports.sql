-- begin_upload: a file on its way to a worker
INSERT INTO upload (id, name) VALUES ($1, $2);

-- add_chunk: its next piece
INSERT INTO upload_chunk (upload_id, number, data) VALUES ($1, $2, $3);

-- complete_upload: it is whole, and may be read
UPDATE upload SET bytes = $2 WHERE id = $1;

-- upload: a whole one
SELECT id, name, bytes FROM upload WHERE id = $1 AND bytes IS NOT NULL;

-- chunk: one piece of it
SELECT data FROM upload_chunk WHERE upload_id = $1 AND number = $2;

-- drop_upload: it is no longer needed
DELETE FROM upload WHERE id = $1;

-- drop_stale_uploads: given up on their way, or never named in a command
DELETE FROM upload u WHERE created_at < now() - make_interval(secs => $1)
AND NOT EXISTS (SELECT FROM import_job j WHERE j.source = 'upload:' || u.id AND j.finished_at IS NULL);

-- create: an import into a list
INSERT INTO import_job (id, list_id, mode, source, format)
SELECT $1, id, $3, $4, $5 FROM coupon_list WHERE name = $2
RETURNING id;

-- claim: the oldest import that waits or was left, under a new lease; imports into one list take their turns, or what
-- one adds would be what another one replaces
UPDATE import_job j
SET state = 'running', lease_token = gen_random_uuid(), lease_owner = $1,
    lease_until = now() + make_interval(secs => $2)
FROM (
    SELECT j.id, l.name FROM import_job j JOIN coupon_list l ON l.id = j.list_id
    WHERE j.finished_at IS NULL AND (j.lease_until IS NULL OR j.lease_until < now())
      AND NOT EXISTS (SELECT FROM import_job earlier
                      WHERE earlier.list_id = j.list_id AND earlier.finished_at IS NULL
                        AND (earlier.created_at, earlier.id) < (j.created_at, j.id))
    ORDER BY j.created_at FOR UPDATE OF j SKIP LOCKED LIMIT 1
) waiting
WHERE j.id = waiting.id
RETURNING j.id, j.list_id, waiting.name AS list, j.mode, j.source, j.format, j.bytes, j.lease_token;

-- hold: lock an import that is still ours; no row if the lease is lost
SELECT id FROM import_job WHERE id = $1 AND lease_token = $2 AND lease_until > now() FOR UPDATE;

-- one_at_a_time: two imports of the same codes in another order deadlock, even with ON CONFLICT
SELECT pg_advisory_xact_lock(hashtextextended('coupon_list', $1));

-- staging: the codes of one chunk, gone with its transaction
CREATE TEMP TABLE IF NOT EXISTS staged_code (line bigint, code text) ON COMMIT DELETE ROWS;

-- add: the staged codes that the list has not got; the others are explained. $3: take over free ones, to replace
WITH numbered AS (
    SELECT line, code, row_number() OVER (PARTITION BY code ORDER BY line) AS nth FROM staged_code
), judged AS (
    SELECT n.line, n.code,
           CASE WHEN n.nth > 1 OR c.import_id = $2 THEN 'duplicate'
                WHEN d.state = 'sent' THEN 'sent'
                WHEN c.code IS NOT NULL THEN 'in_list' END AS reason,
           $3 AND n.nth = 1 AND c.import_id <> $2 AND c.sendout_id IS NULL AS replaces
    FROM numbered n
    LEFT JOIN coupon c ON c.list_id = $1 AND c.code = n.code
    LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
), kept AS (
    UPDATE coupon c SET import_id = $2 FROM judged j
    WHERE j.replaces AND c.list_id = $1 AND c.code = j.code AND c.sendout_id IS NULL
    RETURNING c.code
), rejected AS (
    INSERT INTO import_rejection (import_id, line, value, reason)
    SELECT $2, j.line, j.code, j.reason FROM judged j
    WHERE j.reason IS NOT NULL AND NOT (j.replaces AND j.code IN (SELECT code FROM kept))
    RETURNING line
), added AS (
    INSERT INTO coupon (list_id, code, import_id)
    SELECT $1, code, $2 FROM judged WHERE reason IS NULL ORDER BY code
    RETURNING code
)
SELECT (SELECT count(*) FROM added) AS added, 0::bigint AS removed, (SELECT count(*) FROM kept) AS kept,
       (SELECT count(*) FROM rejected) AS rejected;

-- delete: the staged codes where they are free, at most $3, which is what no sendout was promised
WITH numbered AS (
    SELECT line, code, row_number() OVER (PARTITION BY code ORDER BY line) AS nth FROM staged_code
), target AS MATERIALIZED (
    SELECT id FROM coupon
    WHERE list_id = $1 AND sendout_id IS NULL AND code IN (SELECT code FROM staged_code)
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM coupon USING target
    WHERE coupon.list_id = $1 AND coupon.id = target.id AND coupon.sendout_id IS NULL
    RETURNING coupon.code
), rejected AS (
    INSERT INTO import_rejection (import_id, line, value, reason)
    SELECT $2, n.line, n.code,
           CASE WHEN n.nth > 1 THEN 'duplicate' WHEN c.code IS NULL THEN 'not_in_list'
                WHEN d.state = 'sent' THEN 'sent' ELSE 'held' END
    FROM numbered n
    LEFT JOIN coupon c ON c.list_id = $1 AND c.code = n.code
    LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
    WHERE n.nth > 1 OR n.code NOT IN (SELECT code FROM gone)
    RETURNING line
)
SELECT 0::bigint AS added, (SELECT count(*) FROM gone) AS removed, 0::bigint AS kept,
       (SELECT count(*) FROM rejected) AS rejected;

-- reject: lines that cannot be codes
INSERT INTO import_rejection (import_id, line, value, reason)
SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::text[]);

-- lock_list: what may be taken out of it
SELECT available FROM coupon_list WHERE id = $1 FOR NO KEY UPDATE;

-- remove_replaced: free codes that the import did not bring, at most $3
WITH target AS MATERIALIZED (
    SELECT id FROM coupon
    WHERE list_id = $1 AND sendout_id IS NULL AND import_id <> $2
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM coupon USING target
    WHERE coupon.list_id = $1 AND coupon.id = target.id AND coupon.sendout_id IS NULL
    RETURNING coupon.id
)
SELECT count(*) FROM gone;

-- move_counters: of the list
UPDATE coupon_list SET total = total + $2, available = available + $2 WHERE id = $1;

-- progress: of the import: $3 bytes read, $4 blank, $5 added, $6 removed, $7 kept, $8 rejected; renews the lease
UPDATE import_job
SET bytes = greatest(bytes, $3), blank = blank + $4, added = added + $5, removed = removed + $6, kept = kept + $7,
    rejected = rejected + $8,
    lines = lines + $4 + $5 + $7 + $8 + CASE WHEN mode = 'delete' THEN $6 ELSE 0 END,
    lease_until = now() + make_interval(secs => $9)
WHERE id = $1 AND lease_token = $2;

-- set_size: of the source, as soon as it is known
UPDATE import_job SET total_bytes = $3 WHERE id = $1 AND lease_token = $2;

-- end: finished, or failed for $4; no row if the lease is lost
UPDATE import_job
SET state = $3, reason = $4, finished_at = now(), lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2 AND state = 'running'
RETURNING id;

-- hand_back: the next worker goes on
UPDATE import_job SET lease_token = NULL, lease_owner = NULL, lease_until = NULL WHERE id = $1 AND lease_token = $2;

-- renew: the lease; no row if it is lost
UPDATE import_job SET lease_until = now() + make_interval(secs => $3)
WHERE id = $1 AND lease_token = $2 AND lease_until > now() RETURNING id;

-- rows: imports, newest first; $1 an id, $2 a list, or NULL
SELECT j.id, l.name AS list, j.mode, j.source, j.state, j.reason, j.lines, j.blank, j.added, j.removed, j.kept, j.rejected,
       j.bytes, j.total_bytes, j.created_at, j.finished_at
FROM import_job j JOIN coupon_list l ON l.id = j.list_id
WHERE ($1::uuid IS NULL OR j.id = $1) AND ($2::text IS NULL OR l.name = $2)
ORDER BY j.created_at DESC LIMIT $3;

-- rejections: of one import, by line
SELECT line, value, reason FROM import_rejection WHERE import_id = $1 ORDER BY line LIMIT $2;

-- judge: what would become of these codes, with nothing written: a dry run
SELECT staged.line, staged.code,
       CASE WHEN d.state = 'sent' THEN 'sent' WHEN c.code IS NOT NULL THEN 'in_list' END AS reason
FROM unnest($2::bigint[], $3::text[]) AS staged (line, code)
LEFT JOIN coupon c ON c.list_id = $1 AND c.code = staged.code
LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
WHERE c.code IS NOT NULL;
