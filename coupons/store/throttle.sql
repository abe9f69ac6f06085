-- book: the next $1 seconds of all workers together; returns the seconds until they begin
INSERT INTO throttle AS t (name, next_at) VALUES ('mail', now() + make_interval(secs => $1))
ON CONFLICT (name) DO UPDATE SET next_at = greatest(t.next_at, clock_timestamp()) + make_interval(secs => $1)
RETURNING greatest(0, extract(epoch FROM next_at - clock_timestamp()) - $1)::float8;
