-- rows: groups with the number of their recipients; $1 names, or NULL for all
SELECT g.id, g.name, g.attributes, g.created_at,
       (SELECT count(*) FROM recipient r WHERE r.group_id = g.id) AS recipients
FROM recipient_group g
WHERE $1::text[] IS NULL OR g.name = ANY ($1)
ORDER BY g.name;

-- extend: add attributes that recipients of the group may have
UPDATE recipient_group SET attributes = ARRAY(SELECT DISTINCT unnest(attributes || $2::text[]) ORDER BY 1) WHERE id = $1;

-- audience: the data of a group that a sendout needs
SELECT id, attributes, EXISTS (SELECT FROM recipient WHERE group_id = recipient_group.id) AS has_recipients
FROM recipient_group WHERE name = $1;

-- known_attributes: the attributes of all groups
SELECT DISTINCT unnest(attributes) AS name FROM recipient_group ORDER BY 1;
