-- find: at most $4 sendouts (if $1 contains sendout) and imports (if $1 contains import) with ids from $2 to $3
SELECT id, kind, name FROM (
    (SELECT s.id, 'sendout' AS kind, m.name || ' to ' || coalesce(g.name, s.group_name, 'inline recipients') AS name
     FROM sendout s JOIN message m ON m.id = s.message_id LEFT JOIN recipient_group g ON g.id = s.group_id
     WHERE 'sendout' = ANY ($1::text[]) AND s.id BETWEEN $2 AND $3 ORDER BY s.id LIMIT $4)
    UNION ALL
    (SELECT j.id, 'import', 'into ' || coalesce(l.name, j.group_name)
     FROM import_job j LEFT JOIN coupon_list l ON l.id = j.list_id
     WHERE 'import' = ANY ($1::text[]) AND j.id BETWEEN $2 AND $3 ORDER BY j.id LIMIT $4)
) found
ORDER BY id LIMIT $4;
