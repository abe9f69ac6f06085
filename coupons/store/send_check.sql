-- count: the recipients of group $1, or those with the address keys $2 and the attributes $3, by what a sendout does
-- They need the attributes $4, and may have got message $5 in the sendouts $6 and $7; if $8, these are left out. They may
-- hold codes of the lists $9 from the sendouts $10 and $11. already_mailed() explains the pairs of sendouts.
SELECT count(*) FILTER (WHERE NOT left_out) AS recipients,
       count(*) FILTER (WHERE NOT left_out AND lacks) AS lacking,
       count(*) FILTER (WHERE NOT left_out AND has_empty) AS with_empty,
       count(*) FILTER (WHERE mailed) AS already_mailed,
       count(*) FILTER (WHERE NOT left_out AND holds) AS code_holders
FROM (
    SELECT mailed.key IS NOT NULL AS mailed, mailed.key IS NOT NULL AND $8 AS left_out,
           NOT attributes ?& $4::text[] AS lacks,
           attributes @> ANY ((SELECT array_agg(jsonb_build_object(name, '')) FROM unnest($4::text[]) name)::jsonb[]) AS has_empty,
           holder.key IS NOT NULL AS holds
    FROM (
        SELECT address_key, attributes FROM recipient WHERE group_id = $1
        UNION ALL
        SELECT address_key, attributes::jsonb FROM unnest($2::text[], $3::text[]) AS given (address_key, attributes)
    ) audience
    LEFT JOIN already_mailed($1, $2, $5, $6, $7) AS mailed (key) ON mailed.key = address_key
    LEFT JOIN code_holders($1, $2, $9, $10, $11) AS holder (key) ON holder.key = address_key
) counted;

-- lacked: how many recipients of group $1 lack each of the attributes $2 that at least one lacks
-- Recipients who got message $3 in the sendouts $4 and $5 are left out.
SELECT name, count(*) AS recipients
FROM recipient, unnest($2::text[]) AS name
WHERE group_id = $1 AND NOT attributes ?& $2::text[] AND NOT attributes ? name
  AND NOT EXISTS (SELECT FROM already_mailed($1, NULL, $3, $4, $5) AS mailed (key) WHERE mailed.key = address_key)
GROUP BY name ORDER BY name;

-- count_mailed: how many recipients of group $1, or of the address keys $2, got message $3 in the sendouts $4 and $5
SELECT count(*)
FROM (SELECT address_key FROM recipient WHERE group_id = $1 UNION ALL SELECT unnest($2::text[])) audience
JOIN already_mailed($1, $2, $3, $4, $5) AS mailed (key) ON mailed.key = address_key;

-- starts_at: the start time $1 if it is in the future, else now
SELECT greatest($1::timestamptz, now());
