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
    created_at REAL NOT NULL,
    -- the conversation that the response's request named
    conversation BLOB
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

-- Conversations: named heads over chains. A turn on one sets busy to itself and head to its
-- parent when it begins; its end writes nothing here (stores/sqlite/conversation_reader.py).

CREATE TABLE conversations (
    -- 16 bytes, as the id of a response
    id BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    -- responses.id of the newest turn that counts, and of the newest that was begun
    head BLOB,
    busy BLOB,
    -- JSON
    metadata BLOB NOT NULL
);

CREATE INDEX conversations_recent ON conversations (tenant, created_at, id);

CREATE INDEX responses_conversation ON responses (conversation, place)
WHERE conversation IS NOT NULL;

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

-- The search index: which words the ended turns hold. Turns are indexed in chunks, many of
-- a tenant's at a time. A chunk is written once and never changed: whatever is erased from a
-- turn dissolves its chunk, in the same statement, and the chunk's other turns wait to be
-- indexed again.
--
-- No word is in here, only a hash of it under the chunk's own secret. SQLite leaves copies of
-- rows that it moves in the unused parts of pages, where secure_delete does not come; of a chunk
-- that is gone they say nothing.

-- The turns that have ended and are in no chunk, by their first place in the log. A mark is
-- new whenever the turn's words are: it tells who has read them whether they still hold.
CREATE TABLE search_waiting (
    place INTEGER PRIMARY KEY,
    mark INTEGER NOT NULL
);

CREATE TABLE search_chunks (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- how many turns are in it, and how many words in those
    turns INTEGER NOT NULL,
    words INTEGER NOT NULL,
    secret BLOB NOT NULL,
    -- among how many drawers its words lie
    drawers INTEGER NOT NULL,
    -- 20 bytes for each turn: place, time, words
    spots BLOB NOT NULL
);

-- All that is read of every chunk: without the spots.
CREATE INDEX search_tenants ON search_chunks (tenant, id, turns, words, secret, drawers);

CREATE TABLE search_places (
    place INTEGER PRIMARY KEY,
    chunk INTEGER NOT NULL
);

CREATE INDEX search_members ON search_places (chunk);

-- Some sixteen words each, and which turns hold them (stores/sqlite/search/segment.py): a row for each
-- word would take ten times as long to write.
CREATE TABLE search_drawers (
    chunk INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (chunk, number)
) WITHOUT ROWID;

CREATE TRIGGER search_dissolve AFTER DELETE ON search_chunks BEGIN
    INSERT OR IGNORE INTO search_waiting (place, mark)
    SELECT place, random() FROM search_places WHERE chunk = OLD.id;
    DELETE FROM search_drawers WHERE chunk = OLD.id;
    DELETE FROM search_places WHERE chunk = OLD.id;
END;

-- A turn ends (kind 3) at the last of its 32768 places.
CREATE TRIGGER search_ended AFTER INSERT ON log WHEN NEW.kind = 3 BEGIN
    INSERT OR REPLACE INTO search_waiting (place, mark) VALUES (NEW.place - 32767, random());
END;

-- An item (kind 1, 2) is erased with its turn, or another is put in its place.
CREATE TRIGGER search_erased AFTER DELETE ON log WHEN OLD.kind IN (1, 2) BEGIN
    UPDATE search_waiting SET mark = random() WHERE place = OLD.place & ~32767;
    DELETE FROM search_chunks
    WHERE id = (SELECT chunk FROM search_places WHERE place = OLD.place & ~32767);
END;

CREATE TRIGGER search_changed AFTER UPDATE ON log WHEN OLD.kind IN (1, 2) BEGIN
    UPDATE search_waiting SET mark = random() WHERE place = OLD.place & ~32767;
    DELETE FROM search_chunks
    WHERE id = (SELECT chunk FROM search_places WHERE place = OLD.place & ~32767);
END;
