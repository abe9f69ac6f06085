-- A sendout stays interrupted if its recipients lack an attribute that a list's alternative text prints now.
ALTER TABLE sendout_list ADD COLUMN lacking integer NOT NULL DEFAULT 0 CHECK (lacking >= 0);
