-- lock_list: lock list $1, so that it cannot be deleted before the import is created
SELECT FROM coupon_list WHERE name = $1 AND deleted_at IS NULL FOR KEY SHARE;

-- create: create an import into list $2 or group $3; no row if the target does not exist
INSERT INTO import_job (id, list_id, group_id, group_name, mode, source, format, confirmed, allow_empty)
SELECT $1, l.id, g.id, g.name, $4, $5, $6, $7, $8
FROM (SELECT) one
LEFT JOIN coupon_list l ON l.name = $2 AND l.deleted_at IS NULL
LEFT JOIN recipient_group g ON g.name = $3
WHERE l.id IS NOT NULL OR g.id IS NOT NULL
RETURNING id;

-- ensure_group: create the group if it does not exist, or else lock it, so that it cannot be deleted before the import
-- is created
INSERT INTO recipient_group (name) VALUES ($1)
ON CONFLICT (name) DO UPDATE SET attributes = recipient_group.attributes WHERE false;

-- failed: what a retry of the failed import $1 repeats; no row if it has not failed
SELECT j.id, l.name AS list, j.group_name AS "group", j.mode, j.source, j.format, j.total_bytes,
       l.deleted_at IS NOT NULL AS is_gone
FROM import_job j LEFT JOIN coupon_list l ON l.id = j.list_id
WHERE j.id = $1 AND j.state = 'failed';

-- finished_of_source: the import that has imported the file of the failed import $1 into the same list or group
SELECT done.id FROM import_job j JOIN import_job done
    ON (done.list_id = j.list_id OR done.group_id = j.group_id) AND done.source = j.source AND done.state = 'finished'
WHERE j.id = $1 AND done.created_at > j.created_at ORDER BY done.created_at LIMIT 1;

-- claim: claim the oldest import that waits or was left by a dead worker, or only import $3 if $3 is not NULL.
-- Imports into one target run in the order of their creation: otherwise one import could replace codes that another adds.
-- An exception is an import in mode add, which may overtake another import in mode add that waits for a retry.
UPDATE import_job j
SET state = 'running', lease_token = gen_random_uuid(), lease_owner = $1,
    lease_until = now() + make_interval(secs => $2), claimed_at = now(), claimed_bytes = read_bytes, claimed_lines = lines,
    progressed_at = NULL, seen_bytes = read_bytes, done_bytes = read_bytes, to_remove = NULL,
    -- before the import adds its first code; an earlier version may have added codes already
    first_id = coalesce(first_id, CASE WHEN j.position = 0 THEN nextval('coupon_id_seq') END)
FROM (
    SELECT j.id, j.state FROM import_job j
    WHERE j.finished_at IS NULL AND (j.lease_until IS NULL OR j.lease_until < now()) AND j.due_at <= now()
      AND ($3::uuid IS NULL OR j.id = $3)
      AND NOT EXISTS (SELECT FROM import_job earlier
                      WHERE (earlier.list_id = j.list_id OR earlier.group_id = j.group_id) AND earlier.finished_at IS NULL
                        AND NOT (earlier.due_at > now() AND earlier.mode = 'add' AND j.mode = 'add')
                        AND (earlier.created_at, earlier.id) < (j.created_at, j.id))
    ORDER BY j.created_at FOR UPDATE OF j SKIP LOCKED LIMIT 1
) waiting
WHERE j.id = waiting.id
RETURNING j.id, j.list_id, j.group_id,
          (SELECT name FROM coupon_list WHERE id = j.list_id) AS list,
          (SELECT case_sensitive FROM coupon_list WHERE id = j.list_id) AS case_sensitive,
          j.group_name AS "group",
          j.mode, j.source, j.format, j.confirmed, j.allow_empty, j.position, j.digest, j.read_bytes, j.lines, j.retries,
          j.checked, j.lease_token,
          waiting.state = 'running' AS is_resumed;

-- seconds_until_due: seconds until the next postponed import is due
SELECT extract(epoch FROM min(due_at) - now())::float8 FROM import_job WHERE finished_at IS NULL AND due_at > now();

-- holds_lease: whether the lease is still valid
SELECT EXISTS (SELECT FROM import_job WHERE id = $1 AND lease_token = $2 AND lease_until > now());

-- set_total_bytes: store the size $3 of the import's source, which is read from now on: after a dry run, for a second time
UPDATE import_job SET total_bytes = $3, seen_bytes = read_bytes WHERE id = $1 AND lease_token = $2;

-- set_checked: store the digests $3 of the text that was run dry; no row if the lease is lost
UPDATE import_job SET checked = $3 WHERE id = $1 AND lease_token = $2 AND lease_until > now() RETURNING id;

-- set_columns: store the columns $3 of the import's rows, for rows that are rejected
UPDATE import_job SET columns = $3 WHERE id = $1 AND lease_token = $2;

-- set_columns_of_group: let the columns of rejected recipients be those of the group
UPDATE import_job j SET columns = ARRAY['email'] || g.attributes
FROM recipient_group g WHERE j.id = $1 AND j.lease_token = $2 AND g.id = j.group_id;

-- get_notices: the notices of import $1
SELECT notices FROM import_job WHERE id = $1;

-- set_notices: store how the import reads its file and what it assumed, skipped, cut or left out so far
UPDATE import_job SET read_as = nullif($3, ''), notices = $4 WHERE id = $1 AND lease_token = $2;

-- record_progress: add the counts $3, and renew the lease. Set the position: $4 bytes of text, with digest $5, are
-- imported, and $6 bytes of the source are read. No row if the lease is lost or the stored position is not before $4
UPDATE import_job j
SET blank = j.blank + c.blank, added = j.added + c.added, removed = j.removed + c.removed,
    existing = j.existing + c.existing, rejected = j.rejected + c.rejected,
    lines = j.lines + c.blank + c.added + c.existing + c.rejected + CASE WHEN mode = 'delete' THEN c.removed ELSE 0 END,
    kept_reserved = j.kept_reserved + c.kept_reserved, kept_assigned = j.kept_assigned + c.kept_assigned,
    position = coalesce($4, position), digest = coalesce($5, digest), read_bytes = greatest(read_bytes, $6),
    retries = CASE WHEN $4::bigint IS NULL THEN retries ELSE 0 END,
    progressed_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => $7)
FROM jsonb_to_record($3) AS c (blank bigint, added bigint, removed bigint, existing bigint, rejected bigint,
                               kept_reserved bigint, kept_assigned bigint)
WHERE id = $1 AND lease_token = $2 AND state = 'running' AND lease_until > clock_timestamp()
  AND ($4::bigint IS NULL OR position < $4)
RETURNING id;

-- record_kept: store how many codes an import in mode replace could not remove
UPDATE import_job SET kept_reserved = $3, kept_assigned = $4 WHERE id = $1 AND lease_token = $2;

-- begin_removing: begin to remove what the file does not have, and store about how much that is, as sendouts may take codes
-- of the list at the same time. From now on the rate is that of the removal. No row if the lease is lost, or if no line was
-- accepted and nothing of the file would remain
UPDATE import_job j
SET to_remove = j.removed + greatest(0, CASE
        WHEN j.list_id IS NOT NULL THEN (
            SELECT least(l.available, l.available - j.added - j.existing + (
                SELECT coalesce(sum(reserved), 0) FROM sendout_list WHERE list_id = l.id))
            FROM coupon_list l WHERE l.id = j.list_id)
        ELSE (SELECT count(*) FROM recipient WHERE group_id = j.group_id) - j.added - j.existing END),
    claimed_at = clock_timestamp(), claimed_lines = j.removed, progressed_at = NULL
WHERE id = $1 AND lease_token = $2 AND (j.allow_empty OR j.added + j.existing > 0)
RETURNING id;

-- end: set the final state $3, with reason $4 if it is failed; no row if the lease is lost
UPDATE import_job
SET state = $3, reason = $4, finished_at = now(), lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2 AND state = 'running'
RETURNING id;

-- cancel: cancel an import, also under another lease; committed chunks stay; no row if the import has ended
UPDATE import_job
SET state = 'cancelled', finished_at = now(), lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND finished_at IS NULL
RETURNING source;

-- release: give up the lease for the next worker; no row if the lease is lost
UPDATE import_job SET lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2 RETURNING id;

-- count_retry: count another retry since the last chunk; no row if the lease is lost
UPDATE import_job SET retries = retries + 1 WHERE id = $1 AND lease_token = $2 RETURNING retries;

-- postpone: release the import; it is due again after $3 seconds
UPDATE import_job
SET due_at = now() + make_interval(secs => $3), lease_token = NULL, lease_owner = NULL, lease_until = NULL
WHERE id = $1 AND lease_token = $2;

-- delete_old_rejections: delete rejected lines, which contain codes or addresses, of imports that ended $1 seconds ago
DELETE FROM import_rejection WHERE import_id IN (
    SELECT id FROM import_job WHERE finished_at < now() - make_interval(secs => $1));

-- renew: extend the lease, and publish the progress: $4 bytes are read, $5 are done; no row if the lease is lost
UPDATE import_job SET lease_until = now() + make_interval(secs => $3),
    seen_bytes = greatest(seen_bytes, $4), done_bytes = greatest(done_bytes, $5)
WHERE id = $1 AND lease_token = $2 AND lease_until > now() RETURNING id;

-- log_event: add an event to the log of an import
INSERT INTO import_event (import_id, text) VALUES ($1, $2);

-- list_events: the log of an import, oldest event first
SELECT at, text FROM import_event WHERE import_id = $1 ORDER BY number;

-- rows: an unfinished import is stalled if nothing has moved for $5 seconds and no worker with its role shows life
-- $4 imports with id $1, of list $2 and of group $3 (NULL: any), newest first, and only those before the import $7 that was
-- created at $6. per_second counts lines since the claim or,
-- in the phase removing, removed codes or recipients since its begin
SELECT j.id, l.name AS list, j.group_name AS "group", j.mode, regexp_replace(regexp_replace(j.source, '[?#].*', '?…'), '//[^/]*@', '//…@') AS source, j.state, j.reason,
       j.lines, j.blank, j.added, j.removed, j.existing, j.rejected, j.kept_reserved, j.kept_assigned,
       CASE WHEN j.state = 'running' THEN CASE WHEN j.to_remove IS NULL THEN 'reading' ELSE 'removing' END END AS phase,
       greatest(j.read_bytes, j.seen_bytes) AS read_bytes, work.done_bytes, j.total_bytes,
       CASE WHEN j.mode IN ('replace', 'undo') THEN greatest(j.to_remove, j.removed) END AS to_remove,
       j.created_at, j.finished_at,
       j.finished_at IS NULL AND greatest(j.created_at, j.due_at, j.claimed_at, j.progressed_at) < now() - make_interval(secs => $5)
           AND NOT EXISTS (SELECT FROM worker w WHERE w.alive_until > now() AND 'import' = ANY (w.roles)) AS stalled,
       same.finished_at AS same_at, same.id AS same_as,
       CASE WHEN j.state = 'running' AND work.done > j.claimed_lines
            THEN ((work.done - j.claimed_lines) / elapsed.seconds)::float8 END AS per_second,
       CASE WHEN j.state <> 'running' THEN NULL
            WHEN j.to_remove IS NOT NULL AND j.removed > j.claimed_lines
            THEN (greatest(j.to_remove - j.removed, 0) * elapsed.seconds / (j.removed - j.claimed_lines))::float8
            WHEN j.to_remove IS NULL AND work.done_bytes > j.claimed_bytes
            THEN (greatest(j.total_bytes - work.done_bytes, 0) * extract(epoch FROM now() - j.claimed_at)
                  / (work.done_bytes - j.claimed_bytes))::float8
       END AS seconds_left,
       coalesce(j.columns, ARRAY[CASE WHEN j.group_name IS NULL THEN 'code' ELSE 'email' END]) AS columns,
       j.read_as, j.notices, undo.id AS undone_by, left_over.to_take_back, left_over.to_restore
FROM import_job j
LEFT JOIN coupon_list l ON l.id = j.list_id
LEFT JOIN recipient_group g ON g.id = j.group_id
LEFT JOIN LATERAL (SELECT id, finished_at FROM import_job earlier
                   WHERE j.state = 'finished' AND earlier.state = 'finished' AND earlier.mode = j.mode AND j.mode <> 'undo'
                     AND (earlier.list_id = j.list_id OR earlier.group_id = j.group_id)
                     AND earlier.digest = j.digest AND earlier.created_at < j.created_at
                   ORDER BY earlier.created_at LIMIT 1) same ON true
LEFT JOIN LATERAL (SELECT id FROM import_job WHERE mode = 'undo' AND source = 'import:' || j.id AND state = 'finished'
                   ORDER BY created_at DESC, id DESC LIMIT 1) undo ON true
LEFT JOIN LATERAL (SELECT u.added - coalesce(sum(e.removed), 0)::bigint AS to_take_back,
                          CASE WHEN bool_or(e.state = 'finished') THEN 0 ELSE u.removed END AS to_restore
                   FROM import_job u LEFT JOIN import_job e ON e.mode = 'undo' AND e.source = j.source
                                                               AND (e.created_at, e.id) < (j.created_at, j.id)
                   WHERE u.id = CASE WHEN j.mode = 'undo' THEN substr(j.source, 8)::uuid END
                   GROUP BY u.added, u.removed) left_over ON true
CROSS JOIN LATERAL (SELECT greatest(extract(epoch FROM j.progressed_at - j.claimed_at), 0.001) AS seconds) elapsed
CROSS JOIN LATERAL (SELECT CASE WHEN j.to_remove IS NULL THEN j.lines ELSE j.removed END AS done,
                           greatest(j.read_bytes, j.done_bytes) AS done_bytes) work
WHERE ($1::uuid IS NULL OR j.id = $1) AND ($2::text IS NULL OR (l.name = $2 AND l.deleted_at IS NULL))
  AND ($3::text IS NULL OR g.name = $3)
  AND ($7::uuid IS NULL OR (j.created_at, j.id) < ($6::timestamptz, $7))
ORDER BY j.created_at DESC, j.id DESC LIMIT $4;

-- created_at: when an import was created
SELECT created_at FROM import_job WHERE id = $1;

-- has_rejections: whether the import has rejected lines; not every login may read them, because they are codes
SELECT EXISTS (SELECT FROM import_rejection WHERE import_id = $1);

-- next_rejections: the next row of rejected lines of an import, after the row with the first line $2
SELECT first_line, lines, texts, reasons,
       (SELECT columns IS NOT NULL FROM import_job WHERE id = $1) AS are_rows
FROM import_rejection WHERE import_id = $1 AND first_line > $2 ORDER BY first_line LIMIT 1;

-- count_reasons: the number of rejected lines of an import for each reason, without the number of another line
SELECT kind AS reason, count(*) AS lines FROM import_rejection, unnest(reasons) AS reason,
       LATERAL (SELECT CASE WHEN reason LIKE 'case:%' THEN 'case' ELSE reason END AS kind) kinds
WHERE import_id = $1
GROUP BY kind ORDER BY lines DESC, kind;
