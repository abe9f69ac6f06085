-- A scheduled sendout starts at its start time, and no longer when its codes are reserved.
UPDATE sendout SET started_at = start_at WHERE start_at > started_at;
