-- Who may do what in the database: a role for each process, with the rights that its work takes and no others.
--
-- Run it as the owner, the user of `coupons migrate`, and again after each migration; a second run changes nothing:
--
--     psql "$COUPONS_DATABASE_URL" -v ON_ERROR_STOP=1 -f docs/reference/roles.sql
--
-- Roles belong to the server: making them takes CREATEROLE, once, and running this again does not. They have neither
-- login nor password. Each process gets a login of its own, a member of one of them or of several:
--
--     CREATE ROLE mailer LOGIN PASSWORD '...' IN ROLE coupons_sender;
--
--     coupons_importer   coupons worker --role import
--     coupons_preparer   coupons worker --role sendout
--     coupons_sender     coupons worker --role deliver
--     coupons_web        coupons web
--     coupons_operator   the command line: what the console can, and lists, messages and groups
--     coupons_auditor    coupons verify
--     coupons_codes      beside web or operator: sees codes, as `who` and the lines that an import did not take show them
--
-- The owner alone migrates, deletes lists, and can change a table, a constraint or a trigger. A program that only
-- publishes commands needs no login here, only one at RabbitMQ.

BEGIN;

-- One at a time, and not while a migration runs: `coupons migrate` holds this lock.
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
    -- From nothing: what is not written here any more is not granted any more.
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA public FROM %s', ours);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM %s', ours);
    EXECUTE format('REVOKE ALL ON SCHEMA public FROM %s', ours);
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;  -- as PostgreSQL 15 begins; older databases let everybody
    EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, %s', here, ours);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %s', ours);
    EXECUTE format('GRANT CONNECT ON %s TO %s', here, ours);
    EXECUTE format('GRANT TEMPORARY ON %s TO coupons_importer, coupons_operator', here);  -- files are staged
    EXECUTE format('GRANT SELECT ON schema_migration, restore_guard TO %s', ours);  -- each checks that both are what they must be
END $$;

-- The import role. It brings codes and takes free ones out, and never gives one to anybody. Of the imports that end it
-- resumes the sendouts that they cover: admission is no more than amounts.
GRANT SELECT, INSERT ON command TO coupons_importer;
GRANT SELECT, INSERT, DELETE, UPDATE (import_id) ON coupon TO coupons_importer;
GRANT USAGE ON SEQUENCE coupon_id_seq TO coupons_importer;
GRANT SELECT, UPDATE (total, available, removed) ON coupon_list TO coupons_importer;
GRANT SELECT ON retired_code, retired_code_key TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (import_id, removed) ON imported_chunk TO coupons_importer;
GRANT SELECT, INSERT, UPDATE ON import_job TO coupons_importer;
GRANT INSERT ON import_event TO coupons_importer;
GRANT SELECT, INSERT, DELETE ON import_rejection TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (size_bytes), DELETE ON upload TO coupons_importer;
GRANT SELECT, INSERT ON upload_chunk TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (attributes) ON recipient_group TO coupons_importer;
GRANT SELECT, INSERT, UPDATE (attributes, import_id), DELETE ON recipient TO coupons_importer;
GRANT SELECT (sendout_id, number, state) ON delivery TO coupons_importer;  -- whether a code was sent
GRANT SELECT (id, name) ON message TO coupons_importer;
GRANT SELECT, UPDATE (state, reason, started_at, lease_token, lease_owner, lease_until) ON sendout TO coupons_importer;
GRANT SELECT, UPDATE (reserved, missing, shortage, alternative_text) ON sendout_list TO coupons_importer;

-- The sendout role. It reserves amounts and writes whom a sendout is to mail; it sees no code, and mails nobody.
GRANT SELECT, INSERT ON command TO coupons_preparer;
GRANT SELECT ON message, message_list, recipient_group, recipient TO coupons_preparer;
GRANT SELECT (message_id, name) ON message_file TO coupons_preparer;
GRANT SELECT (list_id, mode, finished_at) ON import_job TO coupons_preparer;
GRANT SELECT, UPDATE (available) ON coupon_list TO coupons_preparer;
GRANT SELECT, INSERT,
      UPDATE (state, reason, per_hour, recipients, started_at, finished_at, lease_token, lease_owner, lease_until)
    ON sendout TO coupons_preparer;
GRANT SELECT, INSERT, UPDATE (reserved, missing, shortage, alternative_text) ON sendout_list TO coupons_preparer;
GRANT INSERT ON delivery_batch, delivery TO coupons_preparer;

-- The deliver role. It sees codes, and assigns and unassigns them; it brings none, takes none out, and changes neither a code
-- nor whom a mail goes to.
GRANT SELECT, UPDATE (sendout_id, delivery_number) ON coupon TO coupons_sender;
GRANT SELECT, UPDATE (available) ON coupon_list TO coupons_sender;
GRANT SELECT ON message, message_list, message_file TO coupons_sender;
GRANT SELECT, UPDATE (state, reason, waiting_reason, next_batch_at, finished_at) ON sendout TO coupons_sender;
GRANT SELECT, UPDATE (reserved, assigned, sent) ON sendout_list TO coupons_sender;
GRANT SELECT,
      UPDATE (remaining, sent, refused, uncertain, cancelled, closed, due_at, lease_token, lease_owner, lease_until,
              in_flight, last_flush, flushed_at, claimed_at, claimed_remaining)
    ON delivery_batch TO coupons_sender;
GRANT SELECT, UPDATE (state, attempts, due_at, reply, changed_at, deferred_since, was_uncertain)
    ON delivery TO coupons_sender;
GRANT INSERT ON delivery_attempt TO coupons_sender;
GRANT SELECT, INSERT, UPDATE (next_mail_at) ON rate_limit TO coupons_sender;

-- Console and API. They see all but codes; they write what a person decides there: pause, cancel, uncertain mails, files.
GRANT SELECT ON command, coupon_list, recipient_group, message, message_list, sendout, sendout_list, delivery_batch,
    delivery, delivery_attempt, import_job, import_event, upload TO coupons_web;
GRANT SELECT (list_id, sendout_id, delivery_number) ON coupon TO coupons_web;
GRANT SELECT (import_id, reasons) ON import_rejection TO coupons_web;
GRANT SELECT (group_id) ON recipient TO coupons_web;
GRANT SELECT (message_id, name) ON message_file TO coupons_web;
GRANT UPDATE (available) ON coupon_list TO coupons_web;
GRANT UPDATE (state, reason, waiting_reason, finished_at, lease_token, lease_owner, lease_until) ON sendout TO coupons_web;
GRANT UPDATE (reserved, assigned, sent) ON sendout_list TO coupons_web;
GRANT UPDATE (remaining, sent, uncertain, closed, due_at) ON delivery_batch TO coupons_web;
GRANT UPDATE (state, changed_at) ON delivery TO coupons_web;
GRANT UPDATE (state, finished_at, lease_token, lease_owner, lease_until) ON import_job TO coupons_web;
GRANT INSERT ON import_event TO coupons_web;
GRANT INSERT, UPDATE (size_bytes), DELETE ON upload TO coupons_web;
GRANT INSERT ON upload_chunk TO coupons_web;

-- The command line, besides what the console may.
GRANT INSERT, UPDATE (description, shortage, alternative_text, preview_text, archived_at) ON coupon_list TO coupons_operator;
GRANT INSERT ON message, message_list, message_file TO coupons_operator;
GRANT SELECT ON message_file TO coupons_operator;
GRANT SELECT (address_key) ON recipient TO coupons_operator;  -- which recipients of a dry run are new

-- The proofs. That no code stands twice in a list is proved of the codes themselves, whatever an index says.
GRANT SELECT ON coupon_list, sendout_list, sendout, delivery_batch TO coupons_auditor;
GRANT SELECT (list_id, code, sendout_id, delivery_number) ON coupon TO coupons_auditor;
GRANT SELECT (sendout_id, number, state) ON delivery TO coupons_auditor;

-- Codes. Those of deleted lists are known by their hashes, which are of use to nobody without their key.
GRANT SELECT ON coupon, import_rejection, retired_code, retired_code_key TO coupons_codes;

COMMIT;
