-- The time during which a sendout is paused does not count as deferred, and a mail that is refused again after a resume
-- is refused for good.
ALTER TABLE sendout ADD COLUMN resumed_at timestamptz;
