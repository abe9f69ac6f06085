-- of_message: at most $2 started sendouts of the versions of message $1
SELECT s.id, s.recipients FROM message m JOIN sendout s ON s.message_id = m.id
WHERE m.name = $1 AND s.started_at IS NOT NULL LIMIT $2;

-- holding: at most $2 sendouts whose recipients hold codes of the lists that message $1 names
SELECT s.id, s.recipients FROM sendout s JOIN (
    SELECT DISTINCT sl.sendout_id FROM message_list ml JOIN sendout_list sl USING (list_id)
    WHERE ml.message_id = $1 AND sl.assigned + sl.sent > 0 LIMIT $2
) holding ON s.id = holding.sendout_id;

-- has_recipients: whether group $1 has at least $2 recipients; no more of them are read
SELECT count(*) = $2 FROM (SELECT FROM recipient WHERE group_id = $1 LIMIT $2) found;

-- hash_plan: allow only hash joins: for a group or sendout newer than the last ANALYZE, the planner expects one row and
-- would compare each recipient with all deliveries; a plan is made for the given sendouts
SET LOCAL enable_nestloop = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL work_mem = '64MB';
SET LOCAL plan_cache_mode = force_custom_plan;

-- usual_plan: end the effect of hash_plan in this transaction
SET LOCAL enable_nestloop TO DEFAULT;
SET LOCAL enable_mergejoin TO DEFAULT;
SET LOCAL work_mem TO DEFAULT;
SET LOCAL plan_cache_mode TO DEFAULT;
