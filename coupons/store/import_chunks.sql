-- staging: the lines of one chunk and what is found out about them; each connection has its own, and keeps it
CREATE TEMP TABLE IF NOT EXISTS staged_code (line bigint, code text);
CREATE TEMP TABLE IF NOT EXISTS staged_recipient (line bigint, address_key text, address text, attributes text);
CREATE TEMP TABLE IF NOT EXISTS staged_rejection (line bigint, text text, reason text);
CREATE TEMP TABLE IF NOT EXISTS known_code (
    line bigint, code text, import_id uuid, sendout_id uuid, delivery_number integer, spent boolean, taken boolean);
CREATE TEMP TABLE IF NOT EXISTS repeated_line (line bigint);
TRUNCATE staged_code, staged_recipient, staged_rejection, known_code, repeated_line;

-- plan: of a list newer than the last ANALYZE the planner expects one row, and would look at all of the chunk for each
SET LOCAL enable_nestloop = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL enable_hashjoin = on;
SET LOCAL enable_seqscan = on;
SET LOCAL enable_bitmapscan = on;
SET LOCAL work_mem = '64MB';
SET LOCAL statement_timeout = '600s';

-- patience: what looks at a whole list or group may take
SET LOCAL statement_timeout = '600s';

-- plan_merge: the chunk in order of its codes along the list's index, whatever the planner believes of the list
SET LOCAL enable_nestloop = off;
SET LOCAL enable_mergejoin = on;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;

-- one_at_a_time: two imports of the same codes in another order deadlock, even with ON CONFLICT; $1 what is imported into.
-- Shared with all imports, and not with the deletion of a list: what it has sent is known before more is taken
SELECT pg_advisory_xact_lock_shared(hashtextextended('retired_code', 0)), pg_advisory_xact_lock(hashtextextended($1, $2));

-- list_total: its codes
SELECT total FROM coupon_list WHERE id = $1;

-- is_known: whether the list $1 has every code of the chunk with the digest $2: another import than $3 has brought just
-- these, and nothing was removed since
SELECT EXISTS (SELECT FROM imported_chunk k JOIN coupon_list l ON l.id = k.list_id
               WHERE k.list_id = $1 AND k.digest = $2 AND k.import_id <> $3 AND k.removed = l.removed);

-- note_chunk: the list $1 has all of it now, unless codes of it were spent; the first import that brought it stays named
-- while that holds
INSERT INTO imported_chunk (list_id, digest, import_id, removed)
SELECT $1, $2, $3, removed FROM coupon_list WHERE id = $1 AND NOT EXISTS (SELECT FROM known_code WHERE spent)
ON CONFLICT (list_id, digest) DO UPDATE SET import_id = excluded.import_id, removed = excluded.removed
WHERE imported_chunk.removed <> excluded.removed;

-- looks_new: whether a hundredth of the chunk's codes has none that the list $1 has: 0.1 s a million
SELECT NOT EXISTS (SELECT FROM retired_code) AND NOT EXISTS (
    SELECT FROM (SELECT code FROM staged_code WHERE line % 101 = 0 OFFSET 0) s
    CROSS JOIN LATERAL (SELECT FROM coupon WHERE list_id = $1 AND code = s.code OFFSET 0) c);

-- last_id: lower than that of every coupon to come
SELECT nextval(pg_get_serial_sequence('coupon', 'id'));

-- known_by_merge: codes that the list $1 and the chunk share, reading all of the list: a million beside a million in 0.9 s;
-- without what import $2 has just brought, after $3
INSERT INTO known_code
SELECT s.line, s.code, c.import_id, c.sendout_id, c.delivery_number, false, false
FROM (SELECT code, min(line) AS line FROM staged_code GROUP BY code) s
JOIN coupon c ON c.list_id = $1 AND c.code = s.code
WHERE c.import_id <> $2 OR c.id <= $3;

-- known_by_probe: the same by the index, 2.3 µs a line: of a list that is much larger than the chunk
INSERT INTO known_code
SELECT s.line, s.code, c.import_id, c.sendout_id, c.delivery_number, false, false
FROM (SELECT code, min(line) AS line FROM staged_code GROUP BY code ORDER BY code) s
CROSS JOIN LATERAL (SELECT * FROM coupon WHERE list_id = $1 AND code = s.code OFFSET 0) c
WHERE c.import_id <> $2 OR c.id <= $3;

-- spent: codes of the chunk that a deleted list's recipients have, if there ever was one
INSERT INTO known_code
SELECT s.line, s.code, NULL, NULL, NULL, true, false
FROM (SELECT code, min(line) AS line FROM staged_code WHERE EXISTS (SELECT FROM retired_code) GROUP BY code) s
CROSS JOIN retired_code_key k JOIN retired_code h ON h.hash = retired_code_hash(k.key, s.code)
WHERE NOT EXISTS (SELECT FROM known_code known WHERE known.code = s.code);

-- repeated: lines whose code stands in an earlier line of the chunk
INSERT INTO repeated_line
SELECT line FROM (SELECT line, row_number() OVER (PARTITION BY code ORDER BY line) AS nth FROM staged_code) numbered
WHERE nth > 1;

-- add_new: all codes of a chunk that looks new, in the order of the index, which is faster than that of the file
INSERT INTO coupon (list_id, code, import_id)
SELECT $1, s.code, $2
FROM (SELECT code, row_number() OVER (PARTITION BY code ORDER BY line) AS nth FROM staged_code) s
WHERE s.nth = 1
ON CONFLICT (list_id, code) DO NOTHING;

-- add: the codes that are not known
INSERT INTO coupon (list_id, code, import_id)
SELECT $1, s.code, $2
FROM (SELECT code, row_number() OVER (PARTITION BY code ORDER BY line) AS nth FROM staged_code
      WHERE NOT EXISTS (SELECT FROM known_code k WHERE k.code = staged_code.code)) s
WHERE s.nth = 1;

-- take_over: free codes of the list $1 that the import $2 brings again are now its own. By their places: joined, all of
-- the table would be read for each chunk
WITH free AS MATERIALIZED (
    SELECT c.place FROM known_code k
    CROSS JOIN LATERAL (SELECT ctid AS place FROM coupon
                        WHERE list_id = $1 AND code = k.code AND sendout_id IS NULL AND import_id <> $2
                        FOR UPDATE OFFSET 0) c
    WHERE k.sendout_id IS NULL AND k.import_id <> $2 AND NOT k.spent
), kept AS (
    UPDATE coupon SET import_id = $2
    WHERE ctid = ANY ((SELECT array_agg(place) FROM free)::tid[]) AND sendout_id IS NULL
    RETURNING code
)
UPDATE known_code k SET taken = true FROM kept WHERE k.code = kept.code;

-- lock_list: what may be taken out of it
SELECT available FROM coupon_list WHERE id = $1 FOR NO KEY UPDATE;

-- delete: known codes of the list $1 where they are free, the first lines first, at most $2: no sendout was promised them
WITH free AS MATERIALIZED (
    SELECT c.place
    FROM (SELECT code FROM known_code WHERE sendout_id IS NULL AND NOT spent ORDER BY line) k
    CROSS JOIN LATERAL (SELECT ctid AS place FROM coupon WHERE list_id = $1 AND code = k.code AND sendout_id IS NULL
                        FOR UPDATE SKIP LOCKED OFFSET 0) c
    LIMIT $2
), gone AS (
    DELETE FROM coupon WHERE ctid = ANY ((SELECT array_agg(place) FROM free)::tid[]) AND sendout_id IS NULL
    RETURNING code
)
UPDATE known_code k SET taken = true FROM gone WHERE k.code = gone.code;

-- not_taken: every line of the chunk that import $1 of mode $2 did not take, and why
SELECT line, text, reason FROM (
    SELECT s.line, s.code AS text,
           CASE WHEN $2 = 'delete' THEN
                    CASE WHEN k.taken AND r.line IS NULL THEN NULL
                         WHEN k.code IS NULL OR k.spent OR k.taken THEN 'not_in_list'
                         WHEN k.sendout_id IS NULL THEN 'reserved'
                         WHEN (SELECT state FROM delivery d
                               WHERE d.sendout_id = k.sendout_id AND d.number = k.delivery_number) = 'sent' THEN 'sent'
                         ELSE 'assigned' END
                WHEN k.code IS NULL OR k.taken THEN CASE WHEN r.line IS NOT NULL THEN 'duplicate' END
                WHEN k.import_id = $1 THEN 'duplicate'
                WHEN k.spent THEN 'sent'
                WHEN k.sendout_id IS NULL THEN 'in_list'
                WHEN (SELECT state FROM delivery d
                      WHERE d.sendout_id = k.sendout_id AND d.number = k.delivery_number) = 'sent' THEN 'sent'
                ELSE 'in_list' END AS reason
    FROM staged_code s LEFT JOIN known_code k ON k.code = s.code LEFT JOIN repeated_line r ON r.line = s.line
) judged
WHERE reason IS NOT NULL
UNION ALL
SELECT line, text, reason FROM staged_rejection;

-- all_known: the same of a chunk of which the list $2 has every code; to be told are those that were sent
SELECT s.line, s.code AS text, CASE WHEN o.is_sent THEN 'sent' ELSE 'in_list' END AS reason
FROM staged_code s
LEFT JOIN (SELECT c.code, (SELECT state FROM delivery d
                           WHERE d.sendout_id = c.sendout_id AND d.number = c.delivery_number) = 'sent' AS is_sent
           FROM coupon c WHERE c.list_id = $2 AND c.sendout_id IS NOT NULL) o ON o.code = s.code
UNION ALL
SELECT line, text, reason FROM staged_rejection;

-- staged_rejections: all that was not taken, when nothing else is to be found out
SELECT line, text, reason FROM staged_rejection;

-- replaced: free codes after $3 that import $2 did not bring, $4 of them
SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM (
    SELECT id FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND import_id <> $2 AND id > $3 ORDER BY id LIMIT $4
) free;

-- remove_replaced: those of $2 that are still free, at most $3
WITH free AS MATERIALIZED (
    SELECT ctid AS place FROM coupon
    WHERE list_id = $1 AND id = ANY ($2::bigint[]) AND sendout_id IS NULL LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM coupon WHERE ctid = ANY ((SELECT array_agg(place) FROM free)::tid[]) AND sendout_id IS NULL;

-- left: what import $2, replacing all of list $1, had to leave: free codes that sendouts may need, and recipients' codes
SELECT (SELECT count(*) FROM coupon WHERE list_id = $1 AND sendout_id IS NULL AND import_id <> $2) AS reserved,
       (SELECT coalesce(sum(assigned), 0)::bigint FROM sendout_list WHERE list_id = $1) AS assigned;

-- move_counters: of the list, to which $2 codes came and from which $3 went
UPDATE coupon_list SET total = total + $2 - $3, available = available + $2 - $3, removed = removed + $3 WHERE id = $1;

-- add_recipients: the staged ones; one known already gets the new attributes; the first line of an address counts
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
), written AS (
    INSERT INTO recipient AS r (group_id, address_key, address, attributes, import_id)
    SELECT $1, address_key, address, attributes::jsonb, $2 FROM numbered WHERE nth = 1
    ON CONFLICT (group_id, address_key) DO UPDATE
        SET attributes = r.attributes || excluded.attributes, import_id = excluded.import_id
        WHERE r.import_id IS DISTINCT FROM excluded.import_id
    RETURNING address_key, xmax = 0 AS is_new
), rejected AS (
    INSERT INTO staged_rejection
    SELECT n.line, (jsonb_build_object('email', n.address) || n.attributes::jsonb)::text, 'duplicate'
    FROM numbered n LEFT JOIN written w USING (address_key)
    WHERE n.nth > 1 OR w.address_key IS NULL
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS existing FROM written;

-- delete_recipients: the staged ones
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
), gone AS (
    DELETE FROM recipient r USING numbered n
    WHERE n.nth = 1 AND r.group_id = $1 AND r.address_key = n.address_key
    RETURNING r.address_key
), rejected AS (
    INSERT INTO staged_rejection
    SELECT n.line, (jsonb_build_object('email', n.address) || n.attributes::jsonb)::text, 'not_in_list'
    FROM numbered n LEFT JOIN gone g USING (address_key)
    WHERE n.nth > 1 OR g.address_key IS NULL
)
SELECT count(*) AS removed FROM gone;

-- remove_recipients: of the group $1 that import $2 did not bring, after the address $3, at most $4
WITH target AS MATERIALIZED (
    SELECT address_key FROM recipient
    WHERE group_id = $1 AND import_id IS DISTINCT FROM $2 AND address_key > $3
    ORDER BY address_key LIMIT $4 FOR UPDATE
), gone AS (
    DELETE FROM recipient r USING target t WHERE r.group_id = $1 AND r.address_key = t.address_key
    RETURNING r.address_key
)
SELECT (SELECT count(*) FROM gone) AS removed, (SELECT max(address_key) FROM target) AS last;

-- count_staged_rejections: by reason
SELECT reason, count(*) AS lines FROM staged_rejection GROUP BY reason;

-- judge_take_over: a dry run of take_over
UPDATE known_code SET taken = true WHERE sendout_id IS NULL AND NOT spent;

-- judge_replaced: how many free codes of the list $1 would be removed of those that are not brought again, $2 of which are,
-- while $3 are added; and how many would have to stay
SELECT least(available + $3, f.free - $2) AS removed, greatest(0, f.free - $2 - available - $3) AS reserved
FROM coupon_list CROSS JOIN (
    SELECT count(*) AS free FROM coupon WHERE list_id = $1 AND sendout_id IS NULL) f
WHERE id = $1;

-- judge_delete: a dry run of delete
UPDATE known_code SET taken = true WHERE code IN (
    SELECT code FROM known_code WHERE sendout_id IS NULL AND NOT spent
    ORDER BY line LIMIT (SELECT available FROM coupon_list WHERE id = $1));

-- group_size: its recipients
SELECT count(*) FROM recipient WHERE group_id = $1;

-- judge_recipients: a dry run of add_recipients, or of delete_recipients
WITH numbered AS (
    SELECT *, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
), judged AS (
    SELECT n.line, n.address, n.attributes, n.nth, r.address_key IS NOT NULL AS is_known
    FROM numbered n LEFT JOIN recipient r ON r.group_id = $1 AND r.address_key = n.address_key
), rejected AS (
    INSERT INTO staged_rejection
    SELECT line, (jsonb_build_object('email', address) || attributes::jsonb)::text,
           CASE WHEN $2 = 'delete' THEN 'not_in_list' ELSE 'duplicate' END
    FROM judged
    WHERE nth > 1 OR ($2 = 'delete' AND NOT is_known)
)
SELECT count(*) FILTER (WHERE nth = 1 AND NOT is_known) AS added, count(*) FILTER (WHERE nth = 1 AND is_known) AS existing
FROM judged;
