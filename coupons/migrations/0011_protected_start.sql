-- A sendout may mail a first part of its recipients and then pause, and may leave out recipients who got its message in
-- another sendout. Workers of the version before know neither. Stop them first. One that still runs writes no outcomes and
-- hands over no mail after this migration, and it prepares no sendout: all these statements call a function whose name
-- changes here. Its mails in flight become uncertain.
ALTER FUNCTION restore_guard_accepted() RENAME TO database_accepted;

ALTER TABLE sendout
    ADD COLUMN first_part integer CHECK (first_part > 0),
    ADD COLUMN rest_held boolean NOT NULL DEFAULT false,
    ADD COLUMN first_mailed_at timestamptz,
    ADD COLUMN skip_already_mailed boolean NOT NULL DEFAULT false,
    ADD COLUMN already_mailed integer NOT NULL DEFAULT 0 CHECK (already_mailed >= 0),
    ADD CONSTRAINT held_after_a_part CHECK (NOT rest_held OR coalesce(first_part < recipients, false)),
    ADD CONSTRAINT part_holds_the_rest CHECK (
        first_part IS NULL OR recipients IS NULL OR first_part >= recipients OR rest_held OR first_mailed_at IS NOT NULL),
    ADD CONSTRAINT left_out_on_request CHECK (already_mailed = 0 OR skip_already_mailed);
CREATE INDEX sendout_message ON sendout (message_id);

CREATE FUNCTION is_mailed(state text, was_uncertain boolean) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT state IN ('sent', 'uncertain') OR was_uncertain
$$;

CREATE FUNCTION was_mailed(key text, of_message text, sendouts uuid[]) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF sendouts IS NULL THEN
        RETURN EXISTS (
            SELECT FROM delivery d
            WHERE d.address_key = key AND is_mailed(d.state, d.was_uncertain)
              AND EXISTS (SELECT FROM sendout s JOIN message m ON m.id = s.message_id
                          WHERE s.id = d.sendout_id AND m.name = of_message OFFSET 0));
    END IF;
    RETURN EXISTS (
        SELECT FROM unnest(sendouts) AS earlier (id) CROSS JOIN LATERAL (
            SELECT d.state, d.was_uncertain FROM delivery d
            WHERE (d.address_key, d.sendout_id) >= (key, earlier.id) AND (d.address_key, d.sendout_id) <= (key, earlier.id)
            ORDER BY d.address_key, d.sendout_id LIMIT 1
        ) d
        WHERE is_mailed(d.state, d.was_uncertain));
END $$;

CREATE FUNCTION already_mailed(of_group bigint, keys text[], of_message text, probed uuid[], hashed uuid[])
RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT DISTINCT address_key FROM delivery
    WHERE cardinality(hashed) > 0 AND sendout_id = ANY (hashed) AND is_mailed(state, was_uncertain)
    UNION ALL
    SELECT address_key FROM (
        SELECT address_key FROM recipient WHERE group_id = of_group UNION ALL SELECT unnest(keys) ORDER BY 1
    ) audience
    WHERE cardinality(probed) IS DISTINCT FROM 0 AND was_mailed(address_key, of_message, probed)
$$;

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

CREATE FUNCTION code_holders(of_group bigint, keys text[], of_lists bigint[], probed uuid[], hashed uuid[])
RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT DISTINCT d.address_key
    FROM delivery d JOIN coupon c ON c.sendout_id = d.sendout_id AND c.delivery_number = d.number
    WHERE cardinality(hashed) > 0 AND d.sendout_id = ANY (hashed)
      AND c.sendout_id = ANY (hashed) AND c.list_id = ANY (of_lists)
    UNION ALL
    SELECT address_key FROM (
        SELECT address_key FROM recipient WHERE group_id = of_group UNION ALL SELECT unnest(keys) ORDER BY 1
    ) audience
    WHERE cardinality(probed) IS DISTINCT FROM 0 AND holds_code(address_key, of_lists, probed)
$$;
