-- Refused mails can be retried, also with a corrected address: their refusals become earlier attempts.
ALTER TABLE delivery_attempt DROP CONSTRAINT delivery_attempt_outcome_check;
ALTER TABLE delivery_attempt ADD CONSTRAINT delivery_attempt_outcome_check
    CHECK (outcome IN ('deferred', 'uncertain', 'refused'));
ALTER TABLE delivery_attempt ADD COLUMN address text;

CREATE FUNCTION refuse_correction() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the address of a mail that may have arrived is final'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'address_is_final';
END $$;
CREATE TRIGGER address_is_final BEFORE UPDATE OF address, address_key ON delivery
    FOR EACH ROW WHEN ((OLD.address, OLD.address_key) IS DISTINCT FROM (NEW.address, NEW.address_key)
                       AND (OLD.was_uncertain OR OLD.state NOT IN ('refused', 'deferred'))) EXECUTE FUNCTION refuse_correction();
