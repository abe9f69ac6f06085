-- Columns and tables take the words of the glossary, each code of a list is counted once, and mails that must never be
-- resent are marked in a column. Stop the workers and the console first: statements of the version before name the old
-- columns. A worker of that version that still runs can write nothing more: its mails in flight become uncertain, and
-- it dead-letters the commands that it receives.

-- In the order in which workers lock them.
LOCK TABLE delivery_batch, sendout, delivery, coupon_list, sendout_list;

ALTER TABLE delivery_batch RENAME COLUMN in_hand TO in_flight;
ALTER TABLE delivery_batch RENAME CONSTRAINT in_hand_is_open TO in_flight_is_remaining;
ALTER TABLE delivery_batch RENAME CONSTRAINT in_hand_under_a_lease TO in_flight_under_a_lease;
ALTER TABLE sendout RENAME COLUMN resume_when_covered TO auto_resume;
ALTER TABLE import_job RENAME COLUMN left_promised TO kept_reserved;
ALTER TABLE import_job RENAME CONSTRAINT import_job_left_promised_check TO import_job_kept_reserved_check;
ALTER TABLE import_job RENAME COLUMN left_bound TO kept_assigned;
ALTER TABLE import_job RENAME CONSTRAINT import_job_left_bound_check TO import_job_kept_assigned_check;
ALTER TABLE spent_code RENAME TO retired_code;
ALTER TABLE retired_code RENAME CONSTRAINT spent_code_pkey TO retired_code_pkey;
ALTER TABLE retired_code RENAME CONSTRAINT spent_code_hash_check TO retired_code_hash_check;
ALTER TABLE spent_code_key RENAME TO retired_code_key;
ALTER TABLE retired_code_key RENAME CONSTRAINT spent_code_key_pkey TO retired_code_key_pkey;
ALTER TABLE retired_code_key RENAME CONSTRAINT spent_code_key_one_check TO retired_code_key_one_check;
ALTER TABLE retired_code_key RENAME CONSTRAINT spent_code_key_key_check TO retired_code_key_key_check;
ALTER FUNCTION spent_hash(bytea, text) RENAME TO retired_code_hash;
ALTER TABLE known_chunk RENAME TO imported_chunk;
ALTER TABLE imported_chunk RENAME CONSTRAINT known_chunk_pkey TO imported_chunk_pkey;
ALTER TABLE imported_chunk RENAME CONSTRAINT known_chunk_digest_check TO imported_chunk_digest_check;
ALTER TABLE imported_chunk RENAME CONSTRAINT known_chunk_list_id_fkey TO imported_chunk_list_id_fkey;

ALTER TABLE command RENAME COLUMN refused TO rejection_reason;
ALTER TABLE upload RENAME COLUMN bytes TO size_bytes;
ALTER TABLE import_job RENAME COLUMN bytes TO read_bytes;
ALTER TABLE import_job RENAME COLUMN interruptions TO retries;
ALTER TABLE import_job RENAME COLUMN kept TO existing;
ALTER TABLE import_job RENAME CONSTRAINT import_job_kept_check TO import_job_existing_check;
ALTER TABLE import_job RENAME CONSTRAINT ended_is_over TO finished_at_when_ended;
ALTER TABLE import_job RENAME CONSTRAINT what_was_read_is_known TO position_has_digest;
ALTER TABLE import_job RENAME CONSTRAINT every_line_explained TO lines_add_up;
ALTER INDEX import_job_open RENAME TO import_job_unfinished;

ALTER TABLE sendout RENAME COLUMN waiting TO waiting_reason;
ALTER TABLE sendout RENAME COLUMN next_at TO next_batch_at;
ALTER INDEX sendout_open RENAME TO sendout_unfinished;
ALTER TABLE delivery_batch RENAME COLUMN open TO remaining;
ALTER TABLE delivery_batch RENAME COLUMN claimed_open TO claimed_remaining;
ALTER TABLE delivery_batch RENAME CONSTRAINT delivery_batch_open_check TO delivery_batch_remaining_check;
ALTER TABLE delivery_batch RENAME CONSTRAINT closed_when_nothing_is_open TO closed_when_none_remain;
ALTER TABLE throttle RENAME TO rate_limit;
ALTER TABLE rate_limit RENAME COLUMN next_at TO next_mail_at;
ALTER TABLE rate_limit RENAME CONSTRAINT throttle_pkey TO rate_limit_pkey;
ALTER TABLE rate_limit RENAME CONSTRAINT throttle_name_check TO rate_limit_name_check;

-- Until now `promised` included `bound`, which included `sent`.
ALTER TABLE sendout_list
    DROP CONSTRAINT promise_within_need,
    DROP CONSTRAINT bound_within_promise,
    DROP CONSTRAINT sent_was_bound;
UPDATE sendout_list SET promised = promised - bound, bound = bound - sent;
ALTER TABLE sendout_list RENAME COLUMN promised TO reserved;
ALTER TABLE sendout_list RENAME COLUMN bound TO assigned;
ALTER TABLE sendout_list RENAME CONSTRAINT sendout_list_bound_check TO sendout_list_assigned_check;
ALTER TABLE sendout_list
    ADD CONSTRAINT sendout_list_reserved_check CHECK (reserved >= 0),
    ADD CONSTRAINT codes_within_need CHECK (reserved + assigned + sent <= needed);

-- Its rows stay as they are: rewritten ones would look restored from a dump.
ALTER TABLE epoch RENAME TO restore_guard;
ALTER TABLE restore_guard RENAME CONSTRAINT epoch_number_check TO restore_guard_number_check;
DROP FUNCTION epoch_accepted();
CREATE FUNCTION restore_guard_accepted() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT bool_and(g.written_by = g.xmin AND g.cluster = n.cluster AND g.timeline = n.timeline
                        AND g.database = n.database)
        FROM restore_guard g CROSS JOIN this_database() n WHERE g.ended_at IS NULL), false);
END $$;

-- A mail that must never be resent was recognized by the text of its reply.
ALTER TABLE delivery ADD COLUMN never_resend boolean NOT NULL DEFAULT false;
UPDATE delivery d SET never_resend = true
FROM delivery_batch b
WHERE b.uncertain > 0 AND d.sendout_id = b.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
  AND d.state = 'uncertain' AND d.reply = 'may have been sent after the backup, then perhaps with another code';
ALTER TABLE delivery ADD CONSTRAINT never_resent CHECK (NOT never_resend OR state IN ('uncertain', 'sent'));

UPDATE import_rejection SET reasons = array_replace(array_replace(reasons, 'promised', 'reserved'), 'bound', 'assigned')
WHERE reasons && ARRAY['promised', 'bound'];
