-- A sendout may mail a first part of its recipients and then pause, and may leave out recipients who got its message in
-- another sendout.
ALTER TABLE sendout
    ADD COLUMN first_part integer CHECK (first_part > 0),
    ADD COLUMN rest_held boolean NOT NULL DEFAULT false,
    ADD COLUMN first_mailed_at timestamptz,
    ADD COLUMN skip_already_mailed boolean NOT NULL DEFAULT false,
    ADD COLUMN already_mailed integer NOT NULL DEFAULT 0 CHECK (already_mailed >= 0),
    ADD CONSTRAINT held_after_a_part CHECK (NOT rest_held OR coalesce(first_part < recipients, false)),
    ADD CONSTRAINT left_out_on_request CHECK (already_mailed = 0 OR skip_already_mailed);
CREATE INDEX sendout_message ON sendout (message_id);

CREATE FUNCTION was_mailed(key text, of_message text, sendouts uuid[]) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF sendouts IS NULL THEN
        RETURN EXISTS (
            SELECT FROM delivery d
            WHERE d.address_key = key AND (d.state IN ('sent', 'uncertain') OR d.was_uncertain)
              AND EXISTS (SELECT FROM sendout s JOIN message m ON m.id = s.message_id
                          WHERE s.id = d.sendout_id AND m.name = of_message OFFSET 0));
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(sendouts) AS earlier (id) CROSS JOIN LATERAL (
            SELECT d.state, d.was_uncertain FROM delivery d
            WHERE (d.address_key, d.sendout_id) >= (key, earlier.id) AND (d.address_key, d.sendout_id) <= (key, earlier.id)
            ORDER BY d.address_key, d.sendout_id LIMIT 1
        ) d
        WHERE d.state IN ('sent', 'uncertain') OR d.was_uncertain);
END $$;

CREATE FUNCTION holds_code(key text, of_lists bigint[], sendouts uuid[]) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF sendouts IS NULL THEN
        RETURN EXISTS (
            SELECT FROM delivery d
            WHERE d.address_key = key
              AND EXISTS (SELECT FROM coupon c
                          WHERE c.list_id = ANY (of_lists) AND c.sendout_id = d.sendout_id AND c.delivery_number = d.number
                          OFFSET 0));
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(sendouts) AS earlier (id) CROSS JOIN LATERAL (
            SELECT d.sendout_id, d.number FROM delivery d
            WHERE (d.address_key, d.sendout_id) >= (key, earlier.id) AND (d.address_key, d.sendout_id) <= (key, earlier.id)
            ORDER BY d.address_key, d.sendout_id LIMIT 1
        ) d
        WHERE EXISTS (SELECT FROM coupon c
                      WHERE c.list_id = ANY (of_lists) AND c.sendout_id = d.sendout_id AND c.delivery_number = d.number
                      OFFSET 0));
END $$;
