-- list_ids: the ids of the lists that message $1 names
SELECT l.name, l.id FROM message_list ml JOIN coupon_list l ON l.id = ml.list_id WHERE ml.message_id = $1;

-- snapshot_group: insert one delivery per recipient of the group, numbered by address
INSERT INTO delivery (sendout_id, number, address_key, address, attributes)
SELECT $1, row_number() OVER (ORDER BY address_key), address_key, address, attributes
FROM recipient WHERE group_id = $2;

-- snapshot_unmailed: like snapshot_group, without the recipients who got message $3 in the sendouts $4 and $5
-- Returns the numbers of inserted and of omitted recipients.
WITH member AS MATERIALIZED (
    SELECT address_key, address, attributes, mailed.key IS NOT NULL AS mailed
    FROM recipient LEFT JOIN already_mailed($2, NULL, $3, $4, $5) AS mailed (key) ON mailed.key = address_key
    WHERE group_id = $2
), inserted AS (
    INSERT INTO delivery (sendout_id, number, address_key, address, attributes)
    SELECT $1, row_number() OVER (ORDER BY address_key), address_key, address, attributes FROM member WHERE NOT mailed
)
SELECT count(*) FILTER (WHERE NOT mailed) AS recipients, count(*) FILTER (WHERE mailed) AS already_mailed FROM member;

-- create_audience: create this connection's table for a copy of a group, which is emptied when the transaction ends
CREATE TEMP TABLE IF NOT EXISTS audience (number integer, address_key text, address text, attributes jsonb)
ON COMMIT DELETE ROWS;

-- copy_audience: copy the recipients of the group, numbered by address; an import may change the group in the meantime
INSERT INTO audience
SELECT row_number() OVER (ORDER BY address_key), address_key, address, attributes FROM recipient WHERE group_id = $1;

-- copy_unmailed: like copy_audience, without the recipients whom snapshot_unmailed omits
WITH member AS MATERIALIZED (
    SELECT address_key, address, attributes, mailed.key IS NOT NULL AS mailed
    FROM recipient LEFT JOIN already_mailed($1, NULL, $2, $3, $4) AS mailed (key) ON mailed.key = address_key
    WHERE group_id = $1
), inserted AS (
    INSERT INTO audience
    SELECT row_number() OVER (ORDER BY address_key), address_key, address, attributes FROM member WHERE NOT mailed
)
SELECT count(*) FILTER (WHERE NOT mailed) AS recipients, count(*) FILTER (WHERE mailed) AS already_mailed FROM member;

-- mailed: those of the address keys $1 whose recipients got message $2 in the sendouts $3 and $4
SELECT key FROM unnest($1::text[]) AS key JOIN already_mailed(NULL, $1, $2, $3, $4) AS mailed (key) USING (key);

-- snapshot_audience: insert one delivery per recipient in the audience
-- Bytes 2n - 2 and 2n - 1 of $2 are the number of the set in $3 of the lists that delivery n needs.
WITH sets AS MATERIALIZED (
    SELECT position - 1 AS number, lists::bigint[] FROM unnest($3::text[]) WITH ORDINALITY AS given (lists, position)
)
INSERT INTO delivery (sendout_id, number, address_key, address, attributes, lists)
SELECT $1, a.number, address_key, address, attributes, s.lists
FROM audience a JOIN sets s ON s.number = get_byte($2, 2 * a.number - 2) + 256 * get_byte($2, 2 * a.number - 1);

-- snapshot_given: insert one delivery per given address, numbered in this order
-- $5 are the lists that the deliveries need, each as the text of an array of ids; NULL for all lists.
INSERT INTO delivery (sendout_id, number, address_key, address, attributes, lists)
SELECT $1, position, address_key, address, attributes::jsonb, lists::bigint[]
FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
     AS given (address_key, address, attributes, lists, position);

-- need_all: store that each of $2 recipients needs one code of each list
INSERT INTO sendout_list (sendout_id, list_id, needed)
SELECT s.id, ml.list_id, $2 FROM sendout s JOIN message_list ml USING (message_id) WHERE s.id = $1
ORDER BY ml.list_id;

-- need_some: store that $3 recipients need a code of the lists $2, and no recipient needs the other lists
INSERT INTO sendout_list (sendout_id, list_id, needed)
SELECT s.id, ml.list_id, coalesce(($3::bigint[])[array_position($2::bigint[], ml.list_id)], 0)
FROM sendout s JOIN message_list ml USING (message_id) WHERE s.id = $1
ORDER BY ml.list_id;
