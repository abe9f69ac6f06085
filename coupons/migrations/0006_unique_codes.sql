-- A code exists once in the whole database, in Unicode NFC and ignoring case (docs/decisions/0013). Stop the workers and the
-- console first.
--
-- Of two equal codes, one stays: a sent one, else one whose mail may have arrived, else an assigned one, else the older.
-- The other one is removed from its list and reported in duplicate_code, unless its recipient may have it already. Such a
-- code stays with its recipient and is reported too. A recipient whose mail is still to be sent gets another code.
-- The same holds for a code that a deleted list has sent: such a code was accepted if another list had it before.
--
-- Before this file runs, coupons/migrate.py locks the tables and fills two temporary ones: folded_code has the fold of each
-- code that is not ASCII, spelled_code has spellings of each code in other cases, if a list was deleted.

ALTER TABLE coupon_list ADD COLUMN case_sensitive boolean NOT NULL DEFAULT false;
ALTER TABLE coupon ADD COLUMN fold text COLLATE "C", ADD COLUMN variant text COLLATE "C" NOT NULL DEFAULT '';
UPDATE coupon SET fold = f.fold FROM folded_code f WHERE f.code = coupon.code;

-- Codes that migration 0006 found a second time, from before a code existed once in the database. The report stays until
-- the list is deleted. A removed code is no longer in `coupon`; a kept one may have reached a second recipient.
CREATE TABLE duplicate_code (
    id            bigint PRIMARY KEY,  -- of its row in `coupon`
    list_id       bigint NOT NULL REFERENCES coupon_list ON DELETE CASCADE,
    code          text NOT NULL,
    state         text NOT NULL CHECK (state IN ('available', 'assigned', 'uncertain', 'sent')),  -- before the migration
    first_id      bigint,  -- the coupon with the same code that counts; NULL if a deleted list has sent the code
    first_list_id bigint,
    removed       boolean NOT NULL
);
CREATE INDEX duplicate_code_list ON duplicate_code (list_id);


CREATE TEMP TABLE equal_code ON COMMIT DROP AS
WITH retired AS MATERIALIZED (
    -- The old hashes are of the spelling that was sent.
    SELECT DISTINCT c.key
    FROM (SELECT code, coalesce(fold, lower(code COLLATE "C")) AS key FROM coupon) c
    JOIN spelled_code s USING (code)
    CROSS JOIN retired_code_key k
    JOIN retired_code h ON h.hash = retired_code_hash(k.key, s.spelling)
), repeated AS MATERIALIZED (
    SELECT key, false AS is_retired FROM (
        SELECT coalesce(fold, lower(code COLLATE "C")) AS key FROM coupon GROUP BY key HAVING count(*) > 1) twice
    WHERE key NOT IN (SELECT key FROM retired)
    UNION ALL
    SELECT key, true FROM retired
), in_flight AS MATERIALIZED (
    SELECT sendout_id, unnest(in_flight) AS number FROM delivery_batch
), ranked AS (
    SELECT c.id, c.list_id, c.code, c.sendout_id, key, is_retired,
           CASE WHEN c.sendout_id IS NULL THEN 'available'
                WHEN d.state = 'sent' THEN 'sent'
                WHEN d.state IN ('pending', 'deferred') AND NOT d.was_uncertain AND i.number IS NULL THEN 'assigned'
                ELSE 'uncertain' END AS state
    FROM coupon c JOIN repeated ON key = coalesce(c.fold, lower(c.code COLLATE "C"))
    LEFT JOIN delivery d ON d.sendout_id = c.sendout_id AND d.number = c.delivery_number
    LEFT JOIN in_flight i ON i.sendout_id = d.sendout_id AND i.number = d.number
)
SELECT *, first_value(id) OVER same AS first_id, first_value(list_id) OVER same AS first_list_id
FROM ranked
WINDOW same AS (PARTITION BY key ORDER BY array_position(ARRAY['sent', 'uncertain', 'assigned', 'available'], state), id);

INSERT INTO duplicate_code (id, list_id, code, state, first_id, first_list_id, removed)
SELECT id, list_id, code, state, CASE WHEN NOT is_retired THEN first_id END,
       CASE WHEN NOT is_retired THEN first_list_id END, state IN ('available', 'assigned')
FROM equal_code WHERE is_retired OR id <> first_id;

UPDATE coupon SET fold = e.key, variant = chr(1) || e.id::text
FROM equal_code e JOIN duplicate_code d USING (id) WHERE e.id = coupon.id AND NOT d.removed;
-- The first row needs its fold: when it is deleted, the trigger below gives its place to a kept duplicate.
UPDATE coupon SET fold = e.key
FROM equal_code e WHERE e.id = coupon.id AND e.id IN (SELECT first_id FROM duplicate_code WHERE NOT removed);
DELETE FROM coupon USING duplicate_code d WHERE d.id = coupon.id AND d.removed;

-- A recipient whose code is removed gets an available one when the mail is sent: the sendout reserves it here.
UPDATE sendout_list sl
SET assigned = sl.assigned - removed.codes,
    reserved = sl.reserved + CASE WHEN s.state IN ('sending', 'paused') THEN removed.codes ELSE 0 END
FROM (SELECT e.sendout_id, e.list_id, count(*) AS codes
      FROM equal_code e JOIN duplicate_code d USING (id) WHERE d.removed AND e.sendout_id IS NOT NULL
      GROUP BY e.sendout_id, e.list_id) removed
JOIN sendout s ON s.id = removed.sendout_id
WHERE sl.sendout_id = removed.sendout_id AND sl.list_id = removed.list_id;

CREATE TEMP TABLE counted_list ON COMMIT DROP AS
SELECT l.id, l.name, l.archived_at, removed.codes, l.total - removed.codes - used.codes AS available
FROM coupon_list l
JOIN (SELECT list_id AS id, count(*) AS codes FROM duplicate_code d WHERE d.removed GROUP BY list_id) removed USING (id)
CROSS JOIN LATERAL (SELECT coalesce(sum(reserved + assigned + sent), 0) AS codes FROM sendout_list WHERE list_id = l.id) used;

DO $$
DECLARE
    lists text;
BEGIN
    SELECT string_agg(
        format('%s (%s more%s)', name, -available, CASE WHEN archived_at IS NOT NULL THEN '; archived' END), ', ' ORDER BY name)
    INTO lists
    FROM counted_list WHERE available < 0;
    IF lists IS NOT NULL THEN
        RAISE EXCEPTION USING MESSAGE = 'these lists have codes that exist twice or that deleted lists have sent, and without them unfinished sendouts '
            'need more codes: ' || lists || '. With the version before, import other codes (first restore an archived list: '
            '`coupons list restore NAME`) or cancel the sendouts. Then migrate again';
    END IF;
END $$;

UPDATE coupon_list l SET total = l.total - c.codes, available = c.available, removed = l.removed + c.codes
FROM counted_list c WHERE c.id = l.id;

ALTER TABLE coupon
    DROP CONSTRAINT coupon_pkey,
    ADD CONSTRAINT fold_of_code CHECK (
        CASE WHEN octet_length(code) = char_length(code) THEN fold IS NULL OR fold = lower(code COLLATE "C")
             ELSE fold IS NOT NULL AND fold = lower(fold COLLATE "C") END),
    ADD CONSTRAINT variant_of_code CHECK (
        variant = '' OR (fold IS NOT NULL AND (
            variant = normalize(code) OR (sendout_id IS NOT NULL AND variant = chr(1) || id::text))));

-- Used by each import and by `who --code`. It also rejects a code that two imports add at the same time.
CREATE UNIQUE INDEX coupon_code ON coupon (coalesce(fold, lower(code COLLATE "C")), variant);

-- Returns the number of rows that a statement inserts, or NULL if the index coupon_code rejects one of them: then it inserts
-- none. The server does not log an error that is caught here. Its message would contain the code.
CREATE FUNCTION rows_unless_conflict(statement text, list_id bigint, import_id uuid) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    inserted bigint;
BEGIN
    EXECUTE statement USING list_id, import_id;
    GET DIAGNOSTICS inserted = ROW_COUNT;
    RETURN inserted;
EXCEPTION WHEN unique_violation THEN
    RETURN NULL;
END $$;

-- A variant is allowed only while another code of the same case-sensitive list has the variant ''. The lock lets a
-- transaction that deletes this other code see the variant.
CREATE FUNCTION check_variant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM coupon c JOIN coupon_list l ON l.id = c.list_id
    WHERE coalesce(c.fold, lower(c.code COLLATE "C")) = NEW.fold AND c.variant = '' AND c.fold IS NOT NULL
      AND c.list_id = NEW.list_id AND l.case_sensitive AND normalize(c.code) <> NEW.variant
    FOR KEY SHARE OF c;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'a variant needs another code of its case-sensitive list'
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'variant_has_a_code';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER variant_has_a_code AFTER INSERT OR UPDATE OF list_id, code, fold, variant ON coupon
    FOR EACH ROW WHEN (NEW.variant <> '' AND NEW.variant = normalize(NEW.code)) EXECUTE FUNCTION check_variant();

-- When a code is deleted, one of its variants takes its place, so that other lists still accept no spelling of it.
CREATE FUNCTION replace_deleted_code() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE coupon SET variant = '' WHERE id = (
        SELECT id FROM coupon WHERE coalesce(fold, lower(code COLLATE "C")) = OLD.fold AND variant <> ''
        ORDER BY id LIMIT 1 FOR NO KEY UPDATE);
    RETURN NULL;
END $$;
CREATE TRIGGER variant_replaces_code AFTER DELETE ON coupon
    FOR EACH ROW WHEN (OLD.fold IS NOT NULL AND OLD.variant = '') EXECUTE FUNCTION replace_deleted_code();

-- The codes of a list depend on this setting, so it never changes.
CREATE FUNCTION refuse_case_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'list % is case-sensitive or not from its creation on', OLD.name
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'case_never_changes';
END $$;
CREATE TRIGGER case_never_changes BEFORE UPDATE OF case_sensitive ON coupon_list
    FOR EACH ROW WHEN (OLD.case_sensitive <> NEW.case_sensitive) EXECUTE FUNCTION refuse_case_change();

-- The old hashes are of a code's own spelling.
ALTER TABLE retired_code RENAME TO retired_spelling;
ALTER TABLE retired_spelling RENAME CONSTRAINT retired_code_pkey TO retired_spelling_pkey;
ALTER TABLE retired_spelling RENAME CONSTRAINT retired_code_hash_check TO retired_spelling_hash_check;
CREATE TABLE retired_code (hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32));
INSERT INTO retired_code
SELECT DISTINCT retired_code_hash(k.key, e.key) FROM equal_code e CROSS JOIN retired_code_key k WHERE e.is_retired;
