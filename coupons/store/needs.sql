-- list_ids: the ids of the lists that the message of a sendout names
SELECT l.name, l.id FROM sendout s JOIN message_list ml USING (message_id) JOIN coupon_list l ON l.id = ml.list_id
WHERE s.id = $1;

-- snapshot_group: insert one delivery per recipient of the group, numbered by address
INSERT INTO delivery (sendout_id, number, address_key, address, attributes)
SELECT $1, row_number() OVER (ORDER BY address_key), address_key, address, attributes
FROM recipient WHERE group_id = $2;

-- create_audience: create this connection's table for a copy of a group, which is emptied when the transaction ends
CREATE TEMP TABLE IF NOT EXISTS audience (number integer, address_key text, address text, attributes jsonb)
ON COMMIT DELETE ROWS;

-- copy_audience: copy the recipients of the group, numbered by address; an import may change the group in the meantime
INSERT INTO audience
SELECT row_number() OVER (ORDER BY address_key), address_key, address, attributes FROM recipient WHERE group_id = $1;

-- deciding_values: the values of the attributes $1 of each recipient in the audience
SELECT number, ARRAY(
    SELECT CASE name WHEN 'email' THEN address ELSE attributes ->> name END FROM unnest($1::text[]) AS name
) AS attribute_values FROM audience;

-- snapshot_audience: insert one delivery per recipient in the audience
-- Bytes 2n - 2 and 2n - 1 of $2 hold the index in $3 of the lists that delivery n needs. An array instead of a join
-- keeps the order of the audience, which is the order of the primary key.
INSERT INTO delivery (sendout_id, number, address_key, address, attributes, lists)
SELECT $1, number, address_key, address, attributes,
       ($3::text[])[256 * get_byte($2, 2 * number - 2) + get_byte($2, 2 * number - 1) + 1]::bigint[]
FROM audience;

-- snapshot_given: insert one delivery per given address, numbered in that order; a repeated address is ignored
-- $5 are the lists that the deliveries need, each as the text of an array of ids; NULL for all lists.
INSERT INTO delivery (sendout_id, number, address_key, address, attributes, lists)
SELECT $1, row_number() OVER (ORDER BY position), address_key, address, attributes::jsonb, lists::bigint[]
FROM (
    SELECT DISTINCT ON (address_key) address_key, address, attributes, lists, position
    FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
         AS given (address_key, address, attributes, lists, position)
    ORDER BY address_key, position
) first;

-- need_all: store that each of $2 recipients needs one code of each list
INSERT INTO sendout_list (sendout_id, list_id, needed)
SELECT s.id, ml.list_id, $2 FROM sendout s JOIN message_list ml USING (message_id) WHERE s.id = $1
ORDER BY ml.list_id;

-- count_needs: store how many deliveries need each list
WITH amount AS MATERIALIZED (
    SELECT lists, count(*) AS deliveries FROM delivery WHERE sendout_id = $1 GROUP BY lists
)
INSERT INTO sendout_list (sendout_id, list_id, needed)
SELECT s.id, ml.list_id,
       (SELECT coalesce(sum(deliveries), 0) FROM amount WHERE lists IS NULL OR ml.list_id = ANY (lists))
FROM sendout s JOIN message_list ml USING (message_id) WHERE s.id = $1
ORDER BY ml.list_id;
