-- One row per job. Columns hold what is asked for; `document` holds the whole job as JSON.
CREATE TABLE jobs (
    -- immutable
    id       TEXT    NOT NULL PRIMARY KEY,   -- UUID with hyphens
    process  TEXT    NOT NULL,               -- namespace:service
    owner    TEXT    NOT NULL,               -- user, or `anonymous`
    created  INTEGER NOT NULL,               -- milliseconds since 1970-01-01T00:00:00Z
    -- mutable
    state    TEXT    NOT NULL,               -- created accepted dispatched running dismissing successful failed dismissed
    finished INTEGER,                        -- milliseconds; NULL until the job is final
    version  INTEGER NOT NULL,               -- grows with each change: an older document never replaces a newer one
    document TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- What must be picked up at start: few rows, whatever the size of the table.
CREATE INDEX jobs_active ON jobs (created) WHERE finished IS NULL;
-- What has expired, and lists of the newest jobs.
CREATE INDEX jobs_finished ON jobs (finished) WHERE finished IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created);
