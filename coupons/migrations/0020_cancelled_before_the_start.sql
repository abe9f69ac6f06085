-- A sendout that was cancelled before its start never starts. Migration 0012 gave it its start time.
UPDATE sendout SET started_at = NULL WHERE state = 'cancelled' AND started_at > coalesce(finished_at, now());
