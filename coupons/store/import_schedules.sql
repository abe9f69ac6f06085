-- put: create schedule $2, or change it; $6 is its next occurrence; a paused one stays paused, a due one stays due
INSERT INTO import_schedule AS s (id, name, cron, zone, command, next_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE SET cron = $3, zone = $4, command = $5,
    changed_at = CASE WHEN (s.cron, s.zone, s.command) = ($3, $4, $5) THEN s.changed_at ELSE now() END,
    next_at = CASE WHEN s.paused_at IS NOT NULL THEN NULL WHEN s.next_at <= now() THEN s.next_at ELSE $6::timestamptz END;

-- lock: lock and return schedule $1
SELECT id, cron, zone, command, next_at, run_at, now() AS now FROM import_schedule WHERE name = $1 FOR UPDATE;

-- clock: the time of the database
SELECT now();

-- rows: schedule $1, or all schedules if it is NULL, each with its last run
SELECT s.name, s.cron, s.zone, s.command, s.next_at, s.run_at, s.paused_at, s.created_at, r.due_at, r.import_id,
    r.reason, r.skipped, r.missed, r.created_at >= s.changed_at AS ran_as_it_is,
    least(s.next_at, s.run_at) < now() - interval '5 minutes' AS overdue
FROM import_schedule s
LEFT JOIN LATERAL (SELECT * FROM import_run WHERE schedule_id = s.id ORDER BY due_at DESC LIMIT 1) r ON true
WHERE $1::text IS NULL OR s.name = $1 ORDER BY s.name;

-- runs: the $2 newest runs of schedule $1
SELECT r.due_at, r.import_id, r.reason, r.skipped, r.missed
FROM import_run r JOIN import_schedule s ON s.id = r.schedule_id
WHERE s.name = $1 ORDER BY r.due_at DESC LIMIT $2;

-- results: the states and numbers of imports
SELECT id, state, reason, lines, added, existing, removed, rejected FROM import_job WHERE id = ANY ($1::uuid[]);

-- set_paused: pause schedule $1, or resume it at its next occurrence $2
UPDATE import_schedule SET paused_at = CASE WHEN $2::timestamptz IS NULL THEN coalesce(paused_at, now()) END,
    next_at = $2, run_at = CASE WHEN $2 IS NOT NULL THEN run_at END
WHERE name = $1;

-- record_paused: store that occurrence $2 of schedule $1 did not run because it was paused, unless it has run
INSERT INTO import_run (schedule_id, due_at, reason, skipped, missed) VALUES ($1, $2, $3, true, $4) ON CONFLICT DO NOTHING;

-- run_now: let schedule $1 run once more now
UPDATE import_schedule SET run_at = coalesce(run_at, date_trunc('milliseconds', now())) WHERE name = $1 RETURNING id;

-- delete: delete schedule $1 with its runs; its imports stay
DELETE FROM import_schedule WHERE name = $1 RETURNING id;

-- due_zones: the time zones of the schedules that are due
SELECT DISTINCT zone FROM import_schedule WHERE least(next_at, run_at) <= now();

-- claim: lock a schedule that is due, in one of the time zones $1, and that no other worker has locked
SELECT id, name, cron, zone, command, next_at, run_at, now() AS now FROM import_schedule
WHERE least(next_at, run_at) <= now() AND zone = ANY ($1::text[])
ORDER BY least(next_at, run_at) LIMIT 1 FOR UPDATE SKIP LOCKED;

-- is_running: whether an import of schedule $1 is not finished
SELECT EXISTS (SELECT FROM import_run r JOIN import_job j ON j.id = r.import_id
               WHERE r.schedule_id = $1 AND j.finished_at IS NULL);

-- advance: set the next occurrence $4 of schedule $1, whose occurrence $2 or $3 runs now; no row if it has run already
UPDATE import_schedule SET next_at = $4, run_at = NULL
WHERE id = $1 AND next_at IS NOT DISTINCT FROM $2 AND run_at IS NOT DISTINCT FROM $3 RETURNING id;

-- has_run: whether occurrence $2 of schedule $1 has run, which happens again only if the clock of the database goes back
SELECT EXISTS (SELECT FROM import_run WHERE schedule_id = $1 AND due_at = $2);

-- record_run: store a run of schedule $1
INSERT INTO import_run (schedule_id, due_at, import_id, reason, skipped, missed) VALUES ($1, $2, $3, $4, $5, $6);

-- delete_old_runs: delete all runs of schedule $1 except the $2 newest
DELETE FROM import_run WHERE schedule_id = $1 AND due_at < (
    SELECT due_at FROM import_run WHERE schedule_id = $1 ORDER BY due_at DESC OFFSET $2 - 1 LIMIT 1);

-- seconds_until_due: seconds until the next occurrence of any schedule; one that no worker can run is not waited for
SELECT extract(epoch FROM min(least(next_at, run_at)) - now())::float8 FROM import_schedule
WHERE least(next_at, run_at) > now() - interval '10 seconds';
