-- API keys, by the SHA-256 of each. A revoked one keeps its row: that keys were ever made
-- is what makes every request need one.
CREATE TABLE keys (
    id TEXT PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    name TEXT,
    revoked_at REAL
) WITHOUT ROWID;

-- What idempotency keys were used for in the last day, by the SHA-256 of each.
CREATE TABLE receipts (
    tenant TEXT NOT NULL,
    digest BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    created_at REAL NOT NULL,
    outcome TEXT,
    PRIMARY KEY (tenant, digest)
) WITHOUT ROWID;

CREATE INDEX receipts_age ON receipts (created_at);
