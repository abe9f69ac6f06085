-- The history of a deleted group keeps its name.
ALTER TABLE import_job ADD COLUMN group_name text;
UPDATE import_job j SET group_name = g.name FROM recipient_group g WHERE g.id = j.group_id;
ALTER TABLE import_job
    DROP CONSTRAINT list_or_group,
    ADD CONSTRAINT list_or_group CHECK ((list_id IS NULL) <> (group_name IS NULL) AND (list_id IS NULL OR group_id IS NULL)),
    ADD CONSTRAINT unfinished_has_a_target CHECK (finished_at IS NOT NULL OR list_id IS NOT NULL OR group_id IS NOT NULL),
    DROP CONSTRAINT import_job_group_id_fkey,
    ADD CONSTRAINT import_job_group_id_fkey FOREIGN KEY (group_id) REFERENCES recipient_group ON DELETE SET NULL;
CREATE INDEX sendout_group ON sendout (group_id) WHERE group_id IS NOT NULL;

ALTER TABLE message ADD COLUMN deleted_at timestamptz;
CREATE FUNCTION refuse_deleted_message() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM message WHERE id = NEW.message_id AND deleted_at IS NOT NULL) THEN
        RAISE EXCEPTION 'a deleted message is not sent'
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'message_exists';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER message_exists AFTER INSERT OR UPDATE OF message_id ON sendout
    FOR EACH ROW EXECUTE FUNCTION refuse_deleted_message();
CREATE FUNCTION refuse_deletion_while_sending() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM sendout WHERE message_id = NEW.id AND finished_at IS NULL) THEN
        RAISE EXCEPTION 'an unfinished sendout needs the message'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'message_is_sent';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER message_is_sent BEFORE UPDATE OF deleted_at ON message
    FOR EACH ROW WHEN (NEW.deleted_at IS NOT NULL) EXECUTE FUNCTION refuse_deletion_while_sending();
