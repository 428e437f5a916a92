-- The orchestrators that share this store. A node owns its jobs as long as its row is here, and it holds that lease by
-- counting `beat` up. Whoever sees no beat for the time of a lease, by its own monotonic clock, removes the row; only then
-- may its jobs be taken over. So no wall clock decides about a lease, neither a node's nor the server's.
CREATE TABLE nodes (
    id         BIGINT NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- never used again
    name       TEXT   NOT NULL UNIQUE,
    generation BIGINT NOT NULL,   -- grows with each start: an older process of the same name writes nothing any more
    beat       BIGINT NOT NULL
);

-- One row per job. Columns hold what is asked for; `document` holds the whole job as JSON. It is text, because jsonb
-- refuses strings with U+0000, which an input may hold.
CREATE TABLE jobs (
    -- immutable
    id       TEXT COLLATE "C" NOT NULL PRIMARY KEY,   -- UUID with hyphens
    process  TEXT    NOT NULL,                        -- namespace:service
    owner    TEXT    NOT NULL,                        -- user, or `anonymous`
    created  BIGINT  NOT NULL,                        -- milliseconds since 1970-01-01T00:00:00Z
    -- mutable
    node     BIGINT  NOT NULL,                        -- its owner; one that is not in `nodes` is dead
    dismiss  BOOLEAN NOT NULL DEFAULT FALSE,          -- a client of another node gives it up
    state    TEXT    NOT NULL,                        -- created accepted dispatched running dismissing successful failed dismissed
    finished BIGINT,                                  -- milliseconds; NULL until the job is final
    version  BIGINT  NOT NULL,                        -- grows with each change: an older document never replaces a newer one
    document TEXT    NOT NULL
);

-- What must be picked up, and looked at by each node: few rows, whatever the size of the table.
CREATE INDEX jobs_active ON jobs (node, created) WHERE finished IS NULL;
CREATE INDEX jobs_dismiss ON jobs (node) WHERE finished IS NULL AND dismiss;
-- What has expired, and lists of the newest jobs.
CREATE INDEX jobs_finished ON jobs (finished) WHERE finished IS NOT NULL;
CREATE INDEX jobs_created ON jobs (created);
CREATE INDEX jobs_state ON jobs (state);
