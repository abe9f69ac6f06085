-- of_message: at most $2 started sendouts of the versions of message $1
SELECT s.id FROM message m JOIN sendout s ON s.message_id = m.id WHERE m.name = $1 AND s.started_at IS NOT NULL LIMIT $2;

-- holding: at most $2 sendouts whose recipients hold codes of the lists that message $1 names
SELECT DISTINCT sl.sendout_id AS id FROM message_list ml JOIN sendout_list sl USING (list_id)
WHERE ml.message_id = $1 AND sl.assigned + sl.sent > 0 LIMIT $2;
