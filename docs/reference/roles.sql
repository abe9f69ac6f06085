-- Creates one least-privilege role per process, with only those rights that the statements of the process need.
--
-- Run this file as the owner (the user of `coupons migrate`), and again after each migration. Running it twice is safe:
--
--     psql "$COUPONS_DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/reference/roles.sql
--
-- Roles belong to the server: the first run needs CREATEROLE, later runs do not. The roles have neither login nor password.
-- Each process gets a login of its own that is a member of one or several of them:
--
--     CREATE ROLE mailer LOGIN PASSWORD '...' IN ROLE coupons_sender;
--
--     coupons_importer   coupons worker --role import
--     coupons_preparer   coupons worker --role sendout
--     coupons_sender     coupons worker --role deliver
--     coupons_web        coupons web
--     coupons_operator   the command line: has the rights of coupons_web, and may change lists, messages and groups
--     coupons_auditor    coupons verify
--     coupons_codes      in addition to coupons_web or coupons_operator: reads codes (`who`, rejected lines, `--dry-run`)
--
-- Only the owner migrates, deletes lists, and can change a table, a constraint or a trigger. A program that only publishes
-- commands needs a login at RabbitMQ, but no database login.

BEGIN;

-- Runs of this file and of `coupons migrate` exclude each other with this lock.
SELECT pg_advisory_xact_lock(27988572882562675);

DO $$
DECLARE
    roles constant text[] := ARRAY['coupons_importer', 'coupons_preparer', 'coupons_sender', 'coupons_web',
                                   'coupons_operator', 'coupons_auditor', 'coupons_codes'];
    ours constant text := array_to_string(roles, ', ');
    here constant text := format('DATABASE %I', current_database());
    role text;
BEGIN
    FOREACH role IN ARRAY roles LOOP
        IF to_regrole(role) IS NULL THEN
            EXECUTE 'CREATE ROLE ' || role;
        END IF;
    END LOOP;
    IF NOT pg_has_role('coupons_operator', 'coupons_web', 'MEMBER') THEN
        GRANT coupons_web TO coupons_operator;
    END IF;
    -- Start without any grant, so that rights that were removed from this file are revoked.
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %s', ours);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM %s', ours);
    EXECUTE format('REVOKE ALL ON SCHEMA public FROM %s', ours);
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;  -- the default since PostgreSQL 15
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %s', here, ours);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %s', ours);
    EXECUTE format('GRANT CONNECT ON %s TO %s', here, ours);
    EXECUTE format('GRANT TEMPORARY ON %s TO coupons_importer, coupons_operator, coupons_codes', here);  -- for staging files
    EXECUTE format('GRANT TEMPORARY ON %s TO coupons_preparer', here);  -- for a copy of the audience
    EXECUTE format('GRANT SELECT ON schema_migration, restore_guard TO %s', ours);  -- each process checks both
END $$;

-- Each worker shows signs of life.
GRANT SELECT, INSERT, UPDATE (last_seen, alive_until), DELETE ON worker
    TO coupons_importer, coupons_preparer, coupons_sender;

-- The import role. It adds codes, removes available codes, and never assigns a code. After an import it resumes the sendouts
-- that now have enough codes, which only changes the numbers of available and reserved codes.
GRANT SELECT, INSERT ON command TO coupons_importer;
GRANT SELECT, DELETE ON sendout_wait TO coupons_importer;
GRANT SELECT, INSERT, DELETE, UPDATE (import_id, variant) ON coupon TO coupons_importer;
GRANT USAGE ON SEQUENCE coupon_id_seq TO coupons_importer;
GRANT SELECT, UPDATE (total, available, removed) ON coupon_list TO coupons_importer;
GRANT SELECT ON retired_code, retired_spelling, retired_code_key TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (import_id, removed) ON imported_chunk TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (shapes), DELETE ON list_shapes TO coupons_importer;
GRANT SELECT (id, name, cron, zone, command, next_at, run_at), UPDATE (next_at, run_at) ON import_schedule TO coupons_importer;
GRANT SELECT (schedule_id, due_at, import_id), INSERT, DELETE ON import_run TO coupons_importer;
GRANT SELECT, INSERT, UPDATE ON import_job TO coupons_importer;
GRANT INSERT ON import_event TO coupons_importer;
GRANT SELECT, INSERT, DELETE ON import_rejection, import_removal TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (size_bytes, expires_at), DELETE ON upload TO coupons_importer;
GRANT SELECT, INSERT ON upload_chunk TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (attributes), DELETE ON recipient_group TO coupons_importer;  -- DELETE: of a failed import
GRANT SELECT, INSERT, UPDATE (attributes, import_id), DELETE ON recipient TO coupons_importer;
GRANT SELECT (sendout_id, number, state) ON delivery TO coupons_importer;  -- shows whether a code was sent
GRANT SELECT (attributes, lists) ON delivery TO coupons_importer;  -- to check an alternative text before a resume
GRANT SELECT (id, name) ON message TO coupons_importer;
GRANT SELECT, UPDATE (state, reason, not_resumed, started_at, lease_token, lease_owner, lease_until)
    ON sendout TO coupons_importer;
GRANT SELECT, UPDATE (reserved, missing, lacking, shortage, alternative_text) ON sendout_list TO coupons_importer;

-- The sendout role. It reserves amounts and writes the deliveries of a sendout. It reads no codes and sends no mails.
GRANT SELECT, INSERT, UPDATE (rejection_reason) ON command TO coupons_preparer;
GRANT SELECT, INSERT, UPDATE, DELETE ON sendout_wait TO coupons_preparer;
GRANT SELECT, INSERT, UPDATE (reason), DELETE ON dead_letter TO coupons_preparer;  -- UPDATE: to lock rows
GRANT SELECT ON message, message_list, recipient_group, recipient TO coupons_preparer;
GRANT SELECT (sendout_id, address_key, state, was_uncertain, attributes, lists) ON delivery
    TO coupons_preparer;  -- who got a message already, and whether an alternative text can be printed
GRANT SELECT (message_id, name) ON message_file TO coupons_preparer;
GRANT SELECT (id, list_id, group_id, group_name, mode, state, read_bytes, done_bytes, total_bytes, created_at, finished_at)
    ON import_job TO coupons_preparer;
GRANT SELECT, UPDATE (available) ON coupon_list TO coupons_preparer;
GRANT SELECT, INSERT,
      UPDATE (state, reason, not_resumed, group_id, per_hour, recipients, started_at, resumed_at, finished_at,
              lease_token, lease_owner, lease_until, rest_held, already_mailed)
    ON sendout TO coupons_preparer;
GRANT SELECT, INSERT, UPDATE (reserved, missing, lacking, shortage, alternative_text) ON sendout_list TO coupons_preparer;
GRANT INSERT ON delivery_batch, delivery TO coupons_preparer;

-- The deliver role. It reads codes, assigns them and returns them to their lists. It neither adds nor removes codes, and can
-- change neither a code nor the recipient of a mail.
GRANT SELECT, UPDATE (sendout_id, delivery_number) ON coupon TO coupons_sender;
GRANT SELECT, UPDATE (available) ON coupon_list TO coupons_sender;
GRANT SELECT ON message, message_list, message_file TO coupons_sender;
GRANT SELECT, UPDATE (state, reason, waiting_reason, next_batch_at, finished_at, first_mailed_at) ON sendout TO coupons_sender;
GRANT SELECT, UPDATE (needed, reserved, assigned, sent) ON sendout_list TO coupons_sender;
GRANT SELECT,
      UPDATE (remaining, sent, refused, uncertain, cancelled, closed, due_at, lease_token, lease_owner, lease_until,
              in_flight, last_flush, flushed_at, claimed_at, deferred, next_attempt_at, outcomes, first_outcomes,
              progressed_at)
    ON delivery_batch TO coupons_sender;
GRANT SELECT, INSERT, UPDATE (times, outcomes, first_outcomes), DELETE ON sendout_speed TO coupons_sender;
GRANT SELECT, UPDATE (state, attempts, due_at, reply, changed_at, deferred_since, was_uncertain, lists)
    ON delivery TO coupons_sender;
GRANT INSERT ON delivery_attempt TO coupons_sender;
GRANT SELECT, INSERT, UPDATE (next_mail_at) ON rate_limit TO coupons_sender;

-- Console and API. They read everything except codes, and write the decisions of operators (pause, reschedule, cancel,
-- uncertain mails, retries) and uploaded files. A retry may correct the address of a mail that no relay has accepted; a
-- trigger keeps all other addresses.
GRANT SELECT ON command, coupon_list, recipient_group, message, message_list, sendout, sendout_list, sendout_speed,
    delivery_batch, delivery, delivery_attempt, import_job, import_event, upload, worker TO coupons_web;
GRANT SELECT (sendout_id, after, unfinished, arrive_until, created_at), DELETE ON sendout_wait TO coupons_web;
GRANT SELECT (list_id, sendout_id, delivery_number) ON coupon TO coupons_web;
GRANT SELECT (import_id, reasons) ON import_rejection TO coupons_web;
GRANT SELECT (group_id, address_key, address, attributes) ON recipient TO coupons_web;  -- to check a sendout
GRANT SELECT (message_id, name) ON message_file TO coupons_web;
GRANT SELECT, INSERT, UPDATE (cron, zone, command, next_at, run_at, paused_at, changed_at), DELETE ON import_schedule
    TO coupons_web;
GRANT SELECT, INSERT ON import_run TO coupons_web;
GRANT UPDATE (available) ON coupon_list TO coupons_web;
GRANT UPDATE (state, reason, not_resumed, waiting_reason, start_at, per_hour, over_minutes, next_batch_at, started_at,
              resumed_at, rest_held, finished_at, lease_token, lease_owner, lease_until)
    ON sendout TO coupons_web;
GRANT UPDATE (reserved, assigned, sent, missing) ON sendout_list TO coupons_web;
GRANT DELETE ON sendout_speed TO coupons_web;  -- when a sendout is cancelled
GRANT UPDATE (remaining, sent, refused, uncertain, closed, due_at, deferred, next_attempt_at) ON delivery_batch TO coupons_web;
GRANT UPDATE (state, changed_at, due_at, deferred_since, reply, address, address_key) ON delivery TO coupons_web;
GRANT INSERT, UPDATE (address) ON delivery_attempt TO coupons_web;
GRANT UPDATE (state, finished_at, lease_token, lease_owner, lease_until) ON import_job TO coupons_web;
GRANT INSERT ON import_event TO coupons_web;
GRANT SELECT (list_id, removed) ON duplicate_code TO coupons_web;  -- the numbers; the codes require coupons_codes
GRANT UPDATE (attributes), DELETE ON recipient_group TO coupons_web;  -- of a cancelled import; UPDATE: to lock it
GRANT INSERT, UPDATE (size_bytes), DELETE ON upload TO coupons_web;
GRANT INSERT ON upload_chunk TO coupons_web;

-- The command line. It has these rights in addition to those of the console.
GRANT INSERT, UPDATE (description, shortage, alternative_text, preview_text, archived_at) ON coupon_list TO coupons_operator;
GRANT INSERT ON message, message_list, message_file TO coupons_operator;
GRANT SELECT ON message_file TO coupons_operator;
GRANT DELETE ON message, message_list, message_file, recipient, import_rejection, import_removal TO coupons_operator;
GRANT SELECT (import_id) ON import_removal TO coupons_operator;
GRANT UPDATE (deleted_at) ON message TO coupons_operator;
GRANT SELECT ON list_shapes TO coupons_operator;
GRANT UPDATE (group_id, group_name) ON sendout TO coupons_operator;

-- The role for checking invariants. It may read codes, to find duplicates independently of any index.
GRANT SELECT ON coupon_list, sendout_list, sendout, delivery_batch TO coupons_auditor;
GRANT SELECT (sendout_id) ON sendout_wait TO coupons_auditor;
GRANT SELECT (id, list_id, group_id, first_id, removed, finished_at) ON import_job TO coupons_auditor;
GRANT SELECT (import_id, lines) ON import_removal TO coupons_auditor;
GRANT SELECT (id, list_id, code, fold, sendout_id, delivery_number) ON coupon TO coupons_auditor;
GRANT SELECT (id, removed) ON duplicate_code TO coupons_auditor;
GRANT SELECT ON retired_code, retired_code_key TO coupons_auditor;
GRANT SELECT (sendout_id, number, state, lists) ON delivery TO coupons_auditor;

-- The role for reading codes. It may also read the key of the hashes by which codes of deleted lists are recognized.
GRANT SELECT ON coupon, duplicate_code, import_rejection, retired_code, retired_spelling, retired_code_key TO coupons_codes;
GRANT SELECT ON upload_chunk, list_shapes TO coupons_codes;  -- to run an uploaded file dry

COMMIT;
