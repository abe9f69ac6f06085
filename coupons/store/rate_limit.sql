-- book: book the next free slot of $1 seconds for the caller; return the seconds until it begins
-- A slot begins at most one hour or 100 slots from now. A later time was booked before the clock was set back.
INSERT INTO rate_limit AS r (name, next_mail_at) VALUES ('mail', now() + make_interval(secs => $1))
ON CONFLICT (name) DO UPDATE SET next_mail_at = make_interval(secs => $1) + greatest(clock_timestamp(), least(
    r.next_mail_at, clock_timestamp() + greatest(interval '1 hour', make_interval(secs => 100 * $1))))
RETURNING greatest(0, extract(epoch FROM next_mail_at - clock_timestamp()) - $1)::float8;
