-- is_past: whether the start $1 is further in the past than $2
SELECT $1::timestamptz < now() - $2::interval;
