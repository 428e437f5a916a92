-- Who owns a job that has not ended. With SQLite there is one orchestrator; the rules are the same as for PostgreSQL, where
-- migrations/postgres/0001_jobs.sql explains them.
CREATE TABLE nodes (
    id         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,  -- never used again
    name       TEXT    NOT NULL UNIQUE,
    generation INTEGER NOT NULL,                            -- grows with each start of the node
    beat       INTEGER NOT NULL                             -- grows while the node lives
) STRICT;

ALTER TABLE jobs ADD COLUMN node    INTEGER NOT NULL DEFAULT 0;  -- its owner; one that is not in `nodes` is dead
ALTER TABLE jobs ADD COLUMN dismiss INTEGER NOT NULL DEFAULT 0;  -- a client of another node gives it up
