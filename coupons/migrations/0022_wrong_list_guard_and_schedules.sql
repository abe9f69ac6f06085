-- The shapes of a list's codes, with which imports of files for another list are found.
CREATE TABLE list_shapes (
    list_id bigint PRIMARY KEY REFERENCES coupon_list ON DELETE CASCADE,
    shapes  jsonb NOT NULL CHECK (jsonb_typeof(shapes) = 'array')
);

-- Recurring imports, and the runs of each.
CREATE TABLE import_schedule (
    id         uuid PRIMARY KEY,
    name       text NOT NULL UNIQUE
               CHECK (name = lower(name) AND name = btrim(name) AND char_length(name) BETWEEN 1 AND 50),
    cron       text NOT NULL CHECK (cron !~ '[[:cntrl:]]'),
    zone       text NOT NULL,
    command    jsonb NOT NULL CHECK (jsonb_typeof(command) = 'object'),
    next_at    timestamptz,
    run_at     timestamptz,
    paused_at  timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT paused_has_no_next CHECK (paused_at IS NULL OR next_at IS NULL)
);
CREATE INDEX import_schedule_due ON import_schedule (least(next_at, run_at));
CREATE TABLE import_run (
    schedule_id uuid NOT NULL REFERENCES import_schedule ON DELETE CASCADE,
    due_at      timestamptz NOT NULL,
    import_id   uuid,
    reason      text,
    skipped     boolean NOT NULL DEFAULT false,
    missed      integer NOT NULL DEFAULT 0 CHECK (missed >= 0),
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (schedule_id, due_at),
    CONSTRAINT run_has_a_result CHECK ((import_id IS NULL) <> (reason IS NULL)),
    CONSTRAINT skipped_has_a_reason CHECK (NOT skipped OR reason IS NOT NULL)
);
