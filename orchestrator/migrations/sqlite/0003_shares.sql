-- What limits look at: by whose limits a job was accepted, and how much is kept for it.
ALTER TABLE jobs ADD COLUMN role  TEXT    NOT NULL DEFAULT '';  -- the owner's first role; empty = none
ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;   -- inputs as far as they are kept, and results

CREATE INDEX jobs_owner ON jobs (owner, state, bytes);

-- Agents that an operator has taken out of service: nothing new is sent to them.
CREATE TABLE drains (
    agent TEXT NOT NULL PRIMARY KEY,
    why   TEXT NOT NULL
) STRICT, WITHOUT ROWID;
