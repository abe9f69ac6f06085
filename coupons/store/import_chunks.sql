-- prepare_staging: create or empty this connection's tables for the lines of a chunk and for search results
CREATE TEMP TABLE IF NOT EXISTS staged_code (
    line bigint, code text, fold text COLLATE "C", variant text COLLATE "C" DEFAULT '');
CREATE TEMP TABLE IF NOT EXISTS staged_recipient (line bigint, address_key text, address text, attributes text);
CREATE TEMP TABLE IF NOT EXISTS staged_rejection (line bigint, text text, reason text);
CREATE TEMP TABLE IF NOT EXISTS existing_code (
    line bigint, key text COLLATE "C", variant text COLLATE "C", list_id bigint, import_id uuid, sendout_id uuid,
    delivery_number integer, retired boolean, accepted boolean);
CREATE TEMP TABLE IF NOT EXISTS repeated_line (line bigint);
CREATE TEMP TABLE IF NOT EXISTS chunk_start (line bigint);
CREATE TEMP TABLE IF NOT EXISTS staged_spelling (key text COLLATE "C", spelling text);
TRUNCATE staged_code, staged_recipient, staged_rejection, existing_code, repeated_line, chunk_start, staged_spelling;
DO $$
BEGIN  -- staged codes with their keys in the index; a stored key would make staging a million codes 0.15 s slower
    IF to_regclass('pg_temp.keyed_code') IS NULL THEN
        CREATE TEMP VIEW keyed_code AS
        SELECT ctid AS place, line, code, fold, variant, coalesce(fold, lower(code COLLATE "C")) AS key FROM staged_code;
    END IF;
END $$;

-- hash_plan: allow only hash joins: for a list newer than the last ANALYZE, others would scan the chunk for each code
-- A chunk waits for the chunk of another import with the same codes, which takes up to half a minute.
SET LOCAL enable_nestloop = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_bitmapscan = on;
SET LOCAL work_mem = '64MB';
SET LOCAL statement_timeout = '600s';
SET LOCAL lock_timeout = '600s';

-- long_timeout: set the time limit for statements that read a whole list or group
SET LOCAL statement_timeout = '600s';

-- merge_plan: allow only merge joins: the sorted chunk is read along the index of the list
SET LOCAL enable_nestloop = off;
SET LOCAL enable_mergejoin = on;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;

-- lock_target: allow one import at a time into row $2 of table $1, so that the counters, the chunks and the variants of a
-- list change in one order. The shared lock excludes the deletion of any list, so that the sent codes of a deleted list
-- are retired before an import looks for them
SELECT pg_advisory_xact_lock_shared(hashtextextended('retired_code', 0)), pg_advisory_xact_lock(hashtextextended($1, $2));

-- count_codes: the number of codes in all lists
SELECT coalesce(sum(total), 0)::bigint FROM coupon_list;

-- is_imported_chunk: whether list $1 has every code of the chunk with digest $2, because an import other than $3 has
-- imported the same chunk and no code was removed from the list since
SELECT EXISTS (SELECT FROM imported_chunk k JOIN coupon_list l ON l.id = k.list_id
               WHERE k.list_id = $1 AND k.digest = $2 AND k.import_id <> $3 AND k.removed = l.removed);

-- record_chunk: record that list $1 has every code of the chunk, unless some codes are retired or in another list. The row
-- keeps the first import of the chunk as long as no code is removed from the list
INSERT INTO imported_chunk (list_id, digest, import_id, removed)
SELECT $1, $2, $3, removed FROM coupon_list
WHERE id = $1 AND NOT EXISTS (SELECT FROM existing_code WHERE retired OR list_id <> $1)
ON CONFLICT (list_id, digest) DO UPDATE SET import_id = excluded.import_id, removed = excluded.removed
WHERE imported_chunk.removed <> excluded.removed;

-- set_variants: set the variants that the codes of the chunk have or get in the case-sensitive list $1: '' for the first
-- code of each key, the own spelling for the others. If another list has the key, all codes get '', and the other list's
-- code is an existing one, even if that list loses it at this moment; the result is the number of these codes
WITH chosen AS MATERIALIZED (
    SELECT chunk.line, chunk.key, coalesce(c.code, chunk.code) AS code, c.list_id, c.import_id, c.sendout_id,
           c.delivery_number
    FROM (SELECT DISTINCT ON (key) line, key, code FROM keyed_code ORDER BY key, line OFFSET 0) chunk
    LEFT JOIN LATERAL (SELECT * FROM coupon
                       WHERE coalesce(fold, lower(code COLLATE "C")) = chunk.key AND variant = '' OFFSET 0) c ON true
), elsewhere AS (
    INSERT INTO existing_code
    SELECT line, key, '', list_id, import_id, sendout_id, delivery_number, false, false
    FROM chosen WHERE list_id <> $1 RETURNING line
), spelled AS MATERIALIZED (
    SELECT s.place, s.variant,
           CASE WHEN f.list_id <> $1 OR s.code = f.code OR normalize(s.code) = normalize(f.code) THEN ''
                ELSE normalize(s.code) END AS new_variant
    FROM keyed_code s JOIN chosen f ON f.key = s.key
), changed AS (
    UPDATE staged_code s SET variant = new_variant FROM spelled WHERE s.ctid = place AND spelled.variant <> new_variant
)
SELECT count(*) FROM elsewhere;

-- looks_new: whether no list has a code of a sample of one hundredth of the chunk; takes 0.1 s for a million codes
SELECT NOT EXISTS (SELECT FROM retired_code) AND NOT EXISTS (SELECT FROM retired_spelling) AND NOT EXISTS (
    SELECT FROM (SELECT key FROM keyed_code WHERE line % 101 = 0 OFFSET 0) s
    CROSS JOIN LATERAL (SELECT FROM coupon WHERE coalesce(fold, lower(code COLLATE "C")) = s.key OFFSET 0) c);

-- find_existing_by_merge: find the codes of the chunk that any list has, and that were not found before, by reading the
-- whole index. A million codes among a million take 0.9 s
INSERT INTO existing_code
SELECT s.line, s.key, s.variant, c.list_id, c.import_id, c.sendout_id, c.delivery_number, false, false
FROM (SELECT key, variant, min(line) AS line FROM keyed_code WHERE NOT EXISTS (
          SELECT FROM existing_code k WHERE k.key = keyed_code.key AND k.variant = keyed_code.variant)
      GROUP BY key, variant) s
JOIN coupon c ON coalesce(c.fold, lower(c.code COLLATE "C")) = s.key AND c.variant = s.variant;

-- find_existing_by_probe: find the same codes as find_existing_by_merge, with one index lookup of 2.3 µs per code; for a
-- chunk that is much smaller than the table
INSERT INTO existing_code
SELECT s.line, s.key, s.variant, c.list_id, c.import_id, c.sendout_id, c.delivery_number, false, false
FROM (SELECT key, variant, min(line) AS line FROM keyed_code WHERE NOT EXISTS (
          SELECT FROM existing_code k WHERE k.key = keyed_code.key AND k.variant = keyed_code.variant)
      GROUP BY key, variant ORDER BY key) s
CROSS JOIN LATERAL (SELECT * FROM coupon
                    WHERE coalesce(fold, lower(code COLLATE "C")) = s.key AND variant = s.variant OFFSET 0) c;

-- needs_spellings: whether there are hashes from before migration 0006, which are of one spelling of a code
SELECT EXISTS (SELECT FROM retired_spelling) AND NOT EXISTS (SELECT FROM staged_spelling);

-- staged_codes: the codes of the chunk with their keys
SELECT DISTINCT code, key FROM keyed_code;

-- find_retired: find the codes of the chunk that are retired, because a deleted list has sent them. If one spelling is
-- retired, all spellings of the chunk are
WITH retired AS MATERIALIZED (
    SELECT s.key
    FROM (SELECT DISTINCT key FROM keyed_code WHERE EXISTS (SELECT FROM retired_code)) s
    CROSS JOIN retired_code_key k JOIN retired_code h ON h.hash = retired_code_hash(k.key, s.key)
    UNION
    SELECT s.key
    FROM staged_spelling s CROSS JOIN retired_code_key k JOIN retired_spelling h ON h.hash = retired_code_hash(k.key, s.spelling)
)
INSERT INTO existing_code
SELECT min(s.line), s.key, s.variant, NULL, NULL, NULL, NULL, true, false
FROM keyed_code s JOIN retired USING (key)
WHERE EXISTS (SELECT FROM retired) AND NOT EXISTS (SELECT FROM existing_code known WHERE known.key = s.key AND known.variant = s.variant)
GROUP BY s.key, s.variant;

-- find_repeated: find the lines whose code is in an earlier line of the chunk
INSERT INTO repeated_line
SELECT line FROM (SELECT line, row_number() OVER (PARTITION BY key, variant ORDER BY line) AS nth FROM keyed_code) numbered
WHERE nth > 1;

-- start_chunk: record for a dry run that a chunk of the import would start at line $1
INSERT INTO chunk_start VALUES ($1);

-- forget_existing: forget the result of an earlier lookup of the chunk
DELETE FROM existing_code;

-- insert_or_conflict: run the statement $1 with the parameters $2 and $3
SELECT rows_unless_conflict($1, $2, $3);

-- add_new: add all codes of a chunk that looks new, in the order of the index, which is faster than the order of the file
INSERT INTO coupon (list_id, code, import_id, fold) SELECT $1, code, $2, fold FROM keyed_code ORDER BY key;

-- add: add the codes that do not exist yet, in the same order. ON CONFLICT would take 1.6 µs more for each code
INSERT INTO coupon (list_id, code, import_id, fold)
SELECT $1, s.code, $2, s.fold
FROM (SELECT code, fold, row_number() OVER (PARTITION BY key ORDER BY line) AS nth FROM keyed_code
      WHERE variant = '' AND NOT EXISTS (SELECT FROM existing_code k WHERE k.key = keyed_code.key AND k.variant = '')) s
WHERE s.nth = 1;

-- add_variants: add the variants that do not exist yet. The list has their keys; no other import adds codes to it
INSERT INTO coupon (list_id, code, import_id, fold, variant)
SELECT $1, s.code, $2, s.fold, s.variant
FROM (SELECT code, fold, variant, row_number() OVER (PARTITION BY key, variant ORDER BY line) AS nth FROM keyed_code
      WHERE variant <> '' AND NOT EXISTS (
          SELECT FROM existing_code k WHERE k.key = keyed_code.key AND k.variant = keyed_code.variant)) s
WHERE s.nth = 1;

-- take_over: mark available codes of list $1 that are in the file of import $2 as belonging to that import. They are
-- updated by ctid, because a join would read the whole table for each chunk. The lookup uses delivery_number instead of
-- sendout_id. Otherwise the planner may choose the index coupon_free, and read the whole list for each code
WITH available AS MATERIALIZED (
    SELECT c.place FROM existing_code k
    CROSS JOIN LATERAL (SELECT ctid AS place FROM coupon
                        WHERE coalesce(fold, lower(code COLLATE "C")) = k.key AND variant = k.variant AND list_id = $1
                          AND delivery_number IS NULL AND import_id <> $2
                        FOR UPDATE OFFSET 0) c
    WHERE k.list_id = $1 AND k.sendout_id IS NULL AND k.import_id <> $2
), kept AS (
    UPDATE coupon SET import_id = $2
    WHERE ctid = ANY ((SELECT array_agg(place) FROM available)::tid[]) AND sendout_id IS NULL
    RETURNING coalesce(fold, lower(code COLLATE "C")) AS key, variant
)
UPDATE existing_code k SET accepted = true FROM kept WHERE k.key = kept.key AND k.variant = kept.variant;

-- lock_variants: lock the variants that may replace deleted codes of the chunk. A batch locks a code before its list, so
-- they are locked before the list
SELECT FROM keyed_code s
CROSS JOIN LATERAL (SELECT FROM coupon WHERE coalesce(fold, lower(code COLLATE "C")) = s.key AND variant <> ''
                    FOR NO KEY UPDATE OFFSET 0) c;

-- lock_variants_of: lock the variants that may replace deleted codes of list $1 with the ids $2
SELECT FROM unnest($2::bigint[]) AS missing (id)
CROSS JOIN LATERAL (SELECT fold FROM coupon WHERE list_id = $1 AND id = missing.id AND sendout_id IS NULL OFFSET 0) m
CROSS JOIN LATERAL (SELECT FROM coupon WHERE coalesce(fold, lower(code COLLATE "C")) = m.fold AND variant <> ''
                    FOR NO KEY UPDATE OFFSET 0) c;

-- lock_list: lock list $1; the result is the number of codes that may be removed
SELECT available FROM coupon_list WHERE id = $1 FOR NO KEY UPDATE;

-- delete: delete codes of list $1 that are not assigned, in the order of their lines, at most $2: the others are reserved.
-- They are kept for an undo of import $3
WITH available AS MATERIALIZED (
    SELECT c.place
    FROM (SELECT key, variant FROM existing_code WHERE list_id = $1 AND sendout_id IS NULL ORDER BY line) k
    CROSS JOIN LATERAL (SELECT ctid AS place FROM coupon
                        WHERE coalesce(fold, lower(code COLLATE "C")) = k.key AND variant = k.variant AND list_id = $1
                          AND delivery_number IS NULL
                        FOR UPDATE SKIP LOCKED OFFSET 0) c
    LIMIT $2
), gone AS (
    DELETE FROM coupon WHERE ctid = ANY ((SELECT array_agg(place) FROM available)::tid[]) AND sendout_id IS NULL
    RETURNING id, code, coalesce(fold, lower(code COLLATE "C")) AS key, variant
), kept AS (
    INSERT INTO import_removal (import_id, texts)
    SELECT $3, array_agg(code ORDER BY id) FROM gone HAVING count(*) > 0
)
UPDATE existing_code k SET accepted = true FROM gone WHERE k.key = gone.key AND k.variant = gone.variant;

-- rejected_lines: every rejected line of the chunk of import $1 with mode $2 into list $3, with its reason. A duplicate has
-- the reason `case` if it differs from the first line with its code in case. The first lines are searched only if there are
-- duplicates. A dry run has all lines in one chunk; of two lines in two chunks, the import does not know the first line
WITH first_line AS MATERIALIZED (
    SELECT DISTINCT ON (key, variant) key, variant, line, code FROM keyed_code
    WHERE EXISTS (SELECT FROM repeated_line)
      AND key IN (SELECT d.key FROM keyed_code d JOIN repeated_line r ON r.line = d.line)
    ORDER BY key, variant, line
)
SELECT line, text, reason FROM (
    SELECT s.line, s.code AS text,
           CASE WHEN $2 = 'delete' THEN
                    CASE WHEN k.accepted AND r.line IS NULL THEN NULL
                         WHEN k.key IS NULL OR k.retired OR k.accepted OR k.list_id <> $3 THEN 'not_in_list'
                         WHEN k.sendout_id IS NULL THEN 'reserved'
                         WHEN (SELECT state FROM delivery d
                               WHERE d.sendout_id = k.sendout_id AND d.number = k.delivery_number) = 'sent' THEN 'sent'
                         ELSE 'assigned' END
                WHEN k.key IS NULL OR k.accepted THEN
                    CASE WHEN r.line IS NULL THEN NULL
                         WHEN normalize(f.code) <> normalize(s.code)
                              AND NOT EXISTS (SELECT FROM chunk_start c WHERE c.line > f.line AND c.line <= s.line)
                             THEN 'case:' || f.line
                         ELSE 'duplicate' END
                WHEN k.import_id = $1 THEN 'duplicate'
                WHEN k.retired THEN 'sent'
                WHEN k.sendout_id IS NOT NULL
                     AND (SELECT state FROM delivery d
                          WHERE d.sendout_id = k.sendout_id AND d.number = k.delivery_number) = 'sent' THEN 'sent'
                WHEN k.list_id <> $3 THEN coalesce('other_list:' || l.name, 'in_list')
                ELSE 'in_list' END AS reason
    FROM keyed_code s LEFT JOIN existing_code k ON k.key = s.key AND (k.variant = s.variant) IS TRUE  -- hashes the key only
    LEFT JOIN repeated_line r ON r.line = s.line LEFT JOIN coupon_list l ON l.id = k.list_id
    LEFT JOIN first_line f ON f.key = s.key AND (f.variant = s.variant) IS TRUE
) checked
WHERE reason IS NOT NULL
UNION ALL
SELECT line, text, reason FROM staged_rejection;

-- lines_of_imported_chunk: every line of a chunk whose codes are all in list $2, with the reason sent or in_list. The sent
-- codes are selected first, because the planner would hash the chunk instead of them. Without sent codes there is no join
WITH sent AS MATERIALIZED (
    SELECT coalesce(fold, lower(code COLLATE "C")) AS key, variant FROM coupon c
    WHERE list_id = $2 AND sendout_id IS NOT NULL
      AND (SELECT state FROM delivery d WHERE d.sendout_id = c.sendout_id AND d.number = c.delivery_number) = 'sent'
)
SELECT line, code AS text, 'in_list' AS reason FROM staged_code WHERE NOT EXISTS (SELECT FROM sent)
UNION ALL
SELECT s.line, s.code, CASE WHEN sent.key IS NULL THEN 'in_list' ELSE 'sent' END
FROM keyed_code s LEFT JOIN sent ON sent.key = s.key AND (sent.variant = s.variant) IS TRUE  -- hashes the key only
WHERE EXISTS (SELECT FROM sent)
UNION ALL
SELECT line, text, reason FROM staged_rejection;

-- staged_rejections: the rejected lines of a chunk that needs no lookup
SELECT line, text, reason FROM staged_rejection;

-- find_missing: find at most $4 codes of list $1 with ids after $3 that are not assigned and not in the file of import $2
SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM (
    SELECT id FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND import_id <> $2 AND id > $3 ORDER BY id LIMIT $4
) missing;

-- find_added: find at most $4 codes of list $1 with ids after $3 that import $2 added and that are not assigned. Those with
-- ids up to $6 may have been kept since by the imports $5, which were undone
SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM (
    SELECT id FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND id > $3
      AND (import_id = $2 OR (import_id = ANY ($5::uuid[]) AND id <= $6)) ORDER BY id LIMIT $4
) added;

-- remove_codes: delete at most $3 of the codes with the ids $2, if they are still not assigned, and keep them for an undo of
-- import $4; the result is their number
WITH available AS MATERIALIZED (
    SELECT ctid AS place FROM coupon
    WHERE list_id = $1 AND id = ANY ($2::bigint[]) AND sendout_id IS NULL LIMIT $3 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM coupon WHERE ctid = ANY ((SELECT array_agg(place) FROM available)::tid[]) AND sendout_id IS NULL
    RETURNING id, code
), kept AS (
    INSERT INTO import_removal (import_id, texts)
    SELECT $4, array_agg(code ORDER BY id) FROM gone HAVING count(*) > 0
)
SELECT count(*) FROM gone;

-- count_kept: count the codes that import $2, which replaces list $1, could not remove: reserved and assigned codes
SELECT (SELECT count(*) FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND import_id <> $2) AS reserved,
       (SELECT coalesce(sum(assigned), 0)::bigint FROM sendout_list WHERE list_id = $1) AS assigned;

-- update_counters: update the counters of list $1 for $2 added and $3 removed codes
UPDATE coupon_list SET total = total + $2 - $3, available = available + $2 - $3, removed = removed + $3 WHERE id = $1;

-- add_recipients: add the staged recipients. If $3, a known recipient keeps no old attribute; otherwise new attributes are
-- merged into the old ones. Of several lines with one address, the first line counts
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
), written AS (
    INSERT INTO recipient AS r (group_id, address_key, address, attributes, import_id, added_by)
    SELECT $1, address_key, address, attributes::jsonb, $2, $2 FROM numbered WHERE nth = 1
    ON CONFLICT (group_id, address_key) DO UPDATE
        SET attributes = CASE WHEN $3 THEN excluded.attributes ELSE r.attributes || excluded.attributes END,
            import_id = excluded.import_id
        WHERE r.import_id IS DISTINCT FROM excluded.import_id
    RETURNING address_key, xmax = 0 AS is_new
), rejected AS (
    INSERT INTO staged_rejection
    SELECT n.line, (jsonb_build_object('email', n.address) || n.attributes::jsonb)::text, 'duplicate'
    FROM numbered n LEFT JOIN written w USING (address_key)
    WHERE n.nth > 1 OR w.address_key IS NULL
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS existing FROM written;

-- extend_with_staged: add the attributes of the staged recipients to those of group $1
UPDATE recipient_group SET attributes = ARRAY(
    SELECT unnest(attributes) UNION SELECT jsonb_object_keys(s.attributes::jsonb) FROM staged_recipient s ORDER BY 1)
WHERE id = $1;

-- restore_recipients: add the staged recipients, which an import removed, unless the group has them again
WITH written AS (
    INSERT INTO recipient (group_id, address_key, address, attributes, import_id, added_by)
    SELECT $1, address_key, address, attributes::jsonb, $2, $2 FROM staged_recipient
    ON CONFLICT (group_id, address_key) DO NOTHING
    RETURNING address_key
), rejected AS (
    INSERT INTO staged_rejection
    SELECT s.line, (jsonb_build_object('email', s.address) || s.attributes::jsonb)::text, 'in_list'
    FROM staged_recipient s LEFT JOIN written w USING (address_key) WHERE w.address_key IS NULL
)
SELECT count(*) AS added FROM written;

-- delete_recipients: delete the staged recipients, and keep them for an undo of import $2. A row has about 4 MiB: 20,000
-- recipients with 100 attributes of 900 letters would exceed the maximum of 1 GB, and an undo reads a whole row into memory
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
), gone AS (
    DELETE FROM recipient r USING numbered n
    WHERE n.nth = 1 AND r.group_id = $1 AND r.address_key = n.address_key
    RETURNING r.address_key, r.address, r.attributes
), kept AS (
    INSERT INTO import_removal (import_id, texts)
    SELECT $2, array_agg(text ORDER BY address_key) FROM (
        SELECT address_key, text, sum(octet_length(text)) OVER (ORDER BY address_key) / 4194304 AS part
        FROM (SELECT address_key, concat_ws(E'\t', to_json(address_key), to_json(address), attributes) AS text FROM gone) texts
    ) parts GROUP BY part ORDER BY part
), rejected AS (
    INSERT INTO staged_rejection
    SELECT n.line, (jsonb_build_object('email', n.address) || n.attributes::jsonb)::text, 'not_in_list'
    FROM numbered n LEFT JOIN gone g USING (address_key)
    WHERE n.nth > 1 OR g.address_key IS NULL
)
SELECT count(*) AS removed FROM gone;

-- remove_recipients: delete at most $4 recipients of group $1 after address $3 that are not in the file of import $2, and
-- keep them for an undo of import $5
WITH target AS MATERIALIZED (
    SELECT address_key FROM recipient
    WHERE group_id = $1 AND import_id IS DISTINCT FROM $2 AND address_key > $3
    ORDER BY address_key LIMIT $4 FOR UPDATE
), gone AS (
    DELETE FROM recipient r USING target t WHERE r.group_id = $1 AND r.address_key = t.address_key
    RETURNING r.address_key, r.address, r.attributes
), kept AS (
    INSERT INTO import_removal (import_id, texts)
    SELECT $5, array_agg(text ORDER BY address_key) FROM (
        SELECT address_key, text, sum(octet_length(text)) OVER (ORDER BY address_key) / 4194304 AS part
        FROM (SELECT address_key, concat_ws(E'\t', to_json(address_key), to_json(address), attributes) AS text FROM gone) texts
    ) parts GROUP BY part ORDER BY part
)
SELECT (SELECT count(*) FROM gone) AS removed, (SELECT max(address_key) FROM target) AS last;

-- take_back_recipients: delete at most $4 recipients of group $1 after address $3 that import $2 added and that no later
-- import has changed, except the imports $6, which were undone. Keep them for an undo of import $5
WITH target AS MATERIALIZED (
    SELECT address_key FROM recipient
    WHERE group_id = $1 AND added_by = $2 AND (import_id = $2 OR import_id = ANY ($6::uuid[])) AND address_key > $3
    ORDER BY address_key LIMIT $4 FOR UPDATE
), gone AS (
    DELETE FROM recipient r USING target t WHERE r.group_id = $1 AND r.address_key = t.address_key
    RETURNING r.address_key, r.address, r.attributes
), kept AS (
    INSERT INTO import_removal (import_id, texts)
    SELECT $5, array_agg(text ORDER BY address_key) FROM (
        SELECT address_key, text, sum(octet_length(text)) OVER (ORDER BY address_key) / 4194304 AS part
        FROM (SELECT address_key, concat_ws(E'\t', to_json(address_key), to_json(address), attributes) AS text FROM gone) texts
    ) parts GROUP BY part ORDER BY part
)
SELECT (SELECT count(*) FROM gone) AS removed, (SELECT max(address_key) FROM target) AS last;

-- replace_attributes: let group $1 have only the attributes $2
UPDATE recipient_group SET attributes = ARRAY(SELECT DISTINCT unnest($2::text[]) ORDER BY 1) WHERE id = $1;

-- count_staged_rejections: the number of staged rejected lines for each reason
SELECT reason, count(*) AS lines FROM staged_rejection GROUP BY reason;

-- dry_run_take_over: a dry run of take_over into list $1
UPDATE existing_code SET accepted = true WHERE list_id = $1 AND sendout_id IS NULL;

-- dry_run_replace: the number of codes of list $1 that would be removed if $2 of its available codes are in the file and
-- $3 codes are added, and the numbers of reserved and assigned codes that would stay
SELECT least(available + $3, f.free - $2) AS removed, greatest(0, f.free - $2 - available - $3) AS reserved,
       (SELECT coalesce(sum(assigned), 0)::bigint FROM sendout_list WHERE list_id = $1) AS assigned
FROM coupon_list CROSS JOIN (
    SELECT count(*) AS free FROM coupon WHERE list_id = $1 AND sendout_id IS NULL) f
WHERE id = $1;

-- dry_run_delete: a dry run of delete
UPDATE existing_code SET accepted = true WHERE (key, variant) IN (
    SELECT key, variant FROM existing_code WHERE list_id = $1 AND sendout_id IS NULL
    ORDER BY line LIMIT (SELECT available FROM coupon_list WHERE id = $1));

-- group_size: the number of recipients in group $1
SELECT count(*) FROM recipient WHERE group_id = $1;

-- dry_run_recipients: a dry run of add_recipients, or of delete_recipients
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
), checked AS (
    SELECT n.line, n.address, n.attributes, n.nth, r.address_key IS NOT NULL AS is_known
    FROM numbered n LEFT JOIN recipient r ON r.group_id = $1 AND r.address_key = n.address_key
), rejected AS (
    INSERT INTO staged_rejection
    SELECT line, (jsonb_build_object('email', address) || attributes::jsonb)::text,
           CASE WHEN $2 = 'delete' THEN 'not_in_list' ELSE 'duplicate' END
    FROM checked
    WHERE nth > 1 OR ($2 = 'delete' AND NOT is_known)
)
SELECT count(*) FILTER (WHERE nth = 1 AND NOT is_known) AS added, count(*) FILTER (WHERE nth = 1 AND is_known) AS existing
FROM checked;
