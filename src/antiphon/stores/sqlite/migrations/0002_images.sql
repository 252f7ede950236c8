-- Images, each kept once for a tenant. Which turn uses which is told by rows of the log, of
-- kind 5, right behind the turn's header: whoever reads a turn meets them, and a turn without
-- images has none. A blob is written and erased in the transaction that adds its first use or
-- takes away its last, so that no crash can leave the one without the other.

CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- SHA-256 of data
    hash BLOB NOT NULL,
    -- last, as it fills pages of its own
    data BLOB NOT NULL
);

CREATE UNIQUE INDEX blobs_hash ON blobs (tenant, hash);

-- A use's body is its blob's id.
CREATE INDEX log_uses ON log (body) WHERE kind = 5;
