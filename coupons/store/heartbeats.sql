-- beat: a worker's sign of life, which is valid for $6 seconds
INSERT INTO worker (id, host, pid, roles, version, alive_until)
VALUES ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
ON CONFLICT (id) DO UPDATE SET last_seen = now(), alive_until = now() + make_interval(secs => $6);

-- delete_dead: delete workers that have been dead for an hour, and dead ones with the host $1 and the pid $2
DELETE FROM worker
WHERE alive_until < now() - interval '1 hour' OR (host = $1 AND pid = $2 AND alive_until < now());

-- leave: delete a worker that ends
DELETE FROM worker WHERE id = $1;

-- rows: all workers, those alive first
SELECT host, pid, roles, version, since, last_seen,
       extract(epoch FROM now() - last_seen)::float8 AS silent_seconds, alive_until > now() AS is_alive
FROM worker ORDER BY alive_until > now() DESC, host, pid, since;
