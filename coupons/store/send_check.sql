-- count: the recipients of group $1, or those with the address keys $2 and the attributes $3, by what a sendout does
-- They need the attributes $4, and may have got message $5 in the sendouts $6 (NULL: in any); if $7, these are left out.
-- They may hold codes of the lists $8 from the sendouts $9 (NULL: from any). OFFSET 0: each function is called once.
SELECT count(*) FILTER (WHERE NOT left_out) AS recipients,
       count(*) FILTER (WHERE NOT left_out AND lacks) AS lacking,
       count(*) FILTER (WHERE mailed) AS already_mailed,
       count(*) FILTER (WHERE NOT left_out AND holds) AS code_holders
FROM (
    SELECT mailed, mailed AND $7 AS left_out, lacks, holds FROM (
        SELECT NOT attributes ?& $4::text[] AS lacks,
               CASE WHEN cardinality($6::uuid[]) = 0 THEN false ELSE was_mailed(address_key, $5, $6) END AS mailed,
               CASE WHEN cardinality($9::uuid[]) = 0 THEN false ELSE holds_code(address_key, $8::bigint[], $9) END AS holds
        FROM (
            SELECT address_key, attributes FROM recipient WHERE group_id = $1
            UNION ALL
            SELECT address_key, attributes::jsonb FROM unnest($2::text[], $3::text[]) AS given (address_key, attributes)
            ORDER BY address_key  -- lookups in the order of the index are twice as fast: 35 instead of 77 µs
        ) audience
        OFFSET 0
    ) facts
) counted;

-- lacked: how many recipients of group $1 lack each of the attributes $2 that at least one lacks
-- If $3 is not NULL, recipients who got message $3 in the sendouts $4 (NULL: in any) are left out.
SELECT name, count(*) AS recipients
FROM recipient, unnest($2::text[]) AS name
WHERE group_id = $1 AND NOT attributes ?& $2::text[] AND NOT attributes ? name
  AND ($3::text IS NULL OR NOT was_mailed(address_key, $3, $4))
GROUP BY name ORDER BY name;

-- count_mailed: how many recipients of group $1, or of the address keys $2, got message $3 in the sendouts $4
SELECT count(*) FROM (
    SELECT address_key FROM recipient WHERE group_id = $1 UNION ALL SELECT unnest($2::text[])
    ORDER BY address_key OFFSET 0  -- as in `count`
) audience
WHERE was_mailed(address_key, $3, $4);

-- starts_at: the start time $1 if it is in the future, else now
SELECT greatest($1::timestamptz, now());
