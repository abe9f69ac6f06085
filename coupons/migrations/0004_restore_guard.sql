-- Workers send only while the database is the one whose data were accepted: by this migration, later by a person.
-- schema.sql says how each kind of going back in time is found.

CREATE TABLE epoch (
    number      integer NOT NULL CHECK (number > 0),
    accepted_at timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    cluster     bigint NOT NULL,
    timeline    integer NOT NULL,
    database    oid NOT NULL,
    written_by  xid NOT NULL DEFAULT pg_current_xact_id()::xid
);

CREATE FUNCTION this_database(OUT cluster bigint, OUT timeline integer, OUT database oid) LANGUAGE plpgsql STABLE AS $$
BEGIN
    SELECT c.system_identifier, d.oid,
           CASE WHEN NOT pg_is_in_recovery()
                THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::integer END
    INTO cluster, database, timeline
    FROM pg_control_system() c CROSS JOIN pg_database d WHERE d.datname = current_database();
END $$;

CREATE FUNCTION epoch_accepted() RETURNS boolean LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN coalesce((
        SELECT bool_and(e.written_by = e.xmin AND e.cluster = n.cluster AND e.timeline = n.timeline
                        AND e.database = n.database)
        FROM epoch e CROSS JOIN this_database() n WHERE e.ended_at IS NULL), false);
END $$;

-- A database that has sendouts may have been restored before it was migrated: a person accepts it.
INSERT INTO epoch (number, cluster, timeline, database)
SELECT 1, cluster, timeline, database FROM this_database() WHERE NOT EXISTS (SELECT FROM sendout);

-- NULL recipients, those of a sendout that is not counted yet, satisfied it.
ALTER TABLE sendout DROP CONSTRAINT sending_has_recipients;
ALTER TABLE sendout ADD CONSTRAINT sending_has_recipients
    CHECK (state NOT IN ('sending', 'interrupted', 'finished') OR coalesce(recipients, 0) > 0);
