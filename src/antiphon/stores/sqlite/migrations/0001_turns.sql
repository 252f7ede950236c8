-- A place is one integer: thread << 34 | seq << 15 | pos (stores/sqlite/row_ids.py). Keyed by it,
-- a chain is one range, and a row lies inside its page up to the page's full size.

CREATE TABLE threads (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- the thread that this one's whole family of branches began with
    tree INTEGER NOT NULL,
    -- the turn it branches off; NULL for a family's first thread
    parent INTEGER
);

CREATE INDEX threads_parent ON threads (parent) WHERE parent IS NOT NULL;

-- How often something was erased from a tree; no row: never.
CREATE TABLE epochs (
    tree INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
);

-- An erased response keeps its row, without tenant and time, so that a late write knows it.
CREATE TABLE responses (
    id BLOB PRIMARY KEY,
    tenant TEXT,
    place INTEGER NOT NULL,
    created_at REAL NOT NULL
) WITHOUT ROWID;

CREATE INDEX responses_recent ON responses (tenant, created_at, place) WHERE tenant IS NOT NULL;

CREATE TABLE log (
    place INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    body BLOB NOT NULL
);

-- The turns that have no end, each with the store that runs it: a handful of rows at any time.
CREATE TABLE running (
    place INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL
);
