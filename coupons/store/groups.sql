-- rows: groups with how many recipients they have; $1 names, or NULL for all
SELECT g.id, g.name, g.attributes, g.created_at,
       (SELECT count(*) FROM recipient r WHERE r.group_id = g.id) AS recipients
FROM recipient_group g
WHERE $1::text[] IS NULL OR g.name = ANY ($1)
ORDER BY g.name;

-- ensure: the group of this name, made if need be, locked; new recipients have $2 as well
INSERT INTO recipient_group (name, attributes) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET name = excluded.name
RETURNING id, attributes;

-- extend: attributes that its recipients may have
UPDATE recipient_group SET attributes = ARRAY(SELECT DISTINCT unnest(attributes || $2::text[]) ORDER BY 1) WHERE id = $1;

-- staging: recipients of one chunk, none of the last
CREATE TEMP TABLE IF NOT EXISTS staged_recipient (
    line bigint, address_key text, address text, attributes text) ON COMMIT DELETE ROWS;
TRUNCATE staged_recipient;

-- add: the staged recipients; one known already gets the new attributes; a later duplicate in the file is left out
WITH first AS (
    SELECT DISTINCT ON (address_key) line, address_key, address, attributes
    FROM staged_recipient ORDER BY address_key, line
), written AS (
    INSERT INTO recipient AS r (group_id, address_key, address, attributes)
    SELECT $1, address_key, address, attributes::jsonb FROM first
    ON CONFLICT (group_id, address_key) DO UPDATE SET attributes = r.attributes || excluded.attributes
    RETURNING (xmax = 0) AS is_new
)
SELECT count(*) FILTER (WHERE is_new) AS added, count(*) FILTER (WHERE NOT is_new) AS known FROM written;

-- duplicates: staged lines whose address stands in an earlier line
SELECT line, address FROM (
    SELECT line, address, row_number() OVER (PARTITION BY address_key ORDER BY line) AS nth FROM staged_recipient
) numbered WHERE nth > 1 ORDER BY line;

-- facts: what a sendout asks of its group
SELECT id, attributes, EXISTS (SELECT FROM recipient WHERE group_id = recipient_group.id) AS has_recipients
FROM recipient_group WHERE name = $1;

-- known_attributes: of all groups
SELECT DISTINCT unnest(attributes) AS name FROM recipient_group ORDER BY 1;
