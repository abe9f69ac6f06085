-- Columns and tables take the words of the glossary in CONTRIBUTING.md. Stop the workers before this migration: the
-- statements of the version before name the old columns.

ALTER TABLE delivery_batch RENAME COLUMN in_hand TO in_flight;
ALTER TABLE delivery_batch RENAME CONSTRAINT in_hand_is_open TO in_flight_is_open;
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

-- A mail that must never be sent again was recognized by the text of its reply.
ALTER TABLE delivery ADD COLUMN never_resend boolean NOT NULL DEFAULT false;
UPDATE delivery d SET never_resend = true
FROM delivery_batch b
WHERE b.uncertain > 0 AND d.sendout_id = b.sendout_id AND d.number BETWEEN b.first_delivery AND b.last_delivery
  AND d.state = 'uncertain' AND d.reply = 'may have been sent after the backup, then perhaps with another code';
ALTER TABLE delivery ADD CONSTRAINT never_resent CHECK (NOT never_resend OR state IN ('uncertain', 'sent'));

UPDATE import_rejection SET reasons = array_replace(array_replace(reasons, 'promised', 'reserved'), 'bound', 'assigned')
WHERE reasons && ARRAY['promised', 'bound'];
