-- The row id of the log packs a turn's thread, its depth and a row's position into one integer:
-- thread << 34 | seq << 15 | pos (stores/sqlite/rows.py). So a chain is one range of the table,
-- and a row lies inside its page up to the page's full size.

CREATE TABLE threads (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- the first thread of the tree of branches that this one belongs to
    tree INTEGER NOT NULL,
    -- row id of the turn that it branches off; NULL: it is a tree's first thread
    parent INTEGER
);

CREATE INDEX threads_parent ON threads (parent) WHERE parent IS NOT NULL;

-- The branches of a tree; first those that begin beside its first turn.
CREATE INDEX threads_tree ON threads (tree, parent) WHERE id <> tree;

-- Chats: one row per tree, from its first turn until its last one is gone. What later turns change
-- of it is applied some transactions after theirs, and before anybody reads it
-- (stores/sqlite/deferred_changes.py).
CREATE TABLE chats (
    tree INTEGER PRIMARY KEY,
    -- of its first turn's response
    key BLOB NOT NULL,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    -- the timestamp and the row id of its newest turn, which is the greatest pair of all; of an
    -- imported chat when it was last written to where it comes from
    updated_at REAL NOT NULL,
    newest INTEGER NOT NULL,
    -- when turns of it were last imported: its expiry counts from then if that is later
    imported_at REAL,
    -- how many threads have turns: erased ones are none
    branches INTEGER NOT NULL,
    -- conversations.id of the one that its first turn was begun on
    conversation BLOB,
    is_pinned INTEGER NOT NULL DEFAULT 0,
    -- its turns do not expire
    is_permanent INTEGER NOT NULL DEFAULT 0,
    -- texts.id; NULL: the first words are its title
    title INTEGER,
    -- a model made the title of the words of its turns, and it goes with any of them
    is_title_generated INTEGER NOT NULL DEFAULT 0,
    -- texts.id of its JSON
    metadata INTEGER,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost REAL
);

CREATE UNIQUE INDEX chats_key ON chats (key);

CREATE INDEX chats_recent ON chats (tenant, updated_at);

-- Without the time: a turn would write it anew.
CREATE INDEX chats_pinned ON chats (tenant) WHERE is_pinned;

-- How often something was erased from a tree; no row: never. Caches compare it.
CREATE TABLE epochs (
    tree INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
);

-- An erased response keeps its row, without tenant and time: a tombstone for late writes.
CREATE TABLE responses (
    id BLOB PRIMARY KEY,
    tenant TEXT,
    row_id INTEGER NOT NULL,
    -- the time that its expiry counts from: never earlier than its parent's
    created_at REAL NOT NULL,
    -- id of the conversation that the request named
    conversation BLOB
) WITHOUT ROWID;

CREATE INDEX responses_recent ON responses (tenant, created_at, row_id) WHERE tenant IS NOT NULL;

CREATE INDEX responses_conversation ON responses (conversation, row_id)
WHERE conversation IS NOT NULL;

-- Everything that contains words, but for images. Rows are only added, at the end, so SQLite never
-- moves one to another page and leaves no copy of it behind. Only where rows are deleted do their
-- neighbours move, and there the pages are scrubbed (stores/sqlite/page_scrubbing.py).
CREATE TABLE texts (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

-- The log: headers, inputs, outputs, ends, tombstones and uses of blobs, by kind.
CREATE TABLE log (
    row_id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    -- a header's response id and time, a tombstone's response id, a use's blob id
    key BLOB,
    -- texts.id of what a header, an item or an end says
    text INTEGER
);

CREATE INDEX log_uses ON log (key) WHERE kind = 5;

-- Turns by the fingerprint of their chain (core/chain_fingerprints.py), for clients that send the
-- whole history each time. A fingerprint is a hash of all that was said until a turn ended, so a row
-- goes when anything of that is erased.
CREATE TABLE chain_fingerprints (
    -- of the turn's header
    row_id INTEGER PRIMARY KEY,
    fingerprint BLOB NOT NULL
);

CREATE INDEX chain_fingerprints_fingerprint ON chain_fingerprints (fingerprint);

-- Turns that were imported, by a digest that an import knows them by again. One that is of names
-- alone stays when its turn is erased, so that the turn is not imported again; one that is of words
-- goes with them, and with all words before them.
CREATE TABLE imported_turns (
    tenant TEXT NOT NULL,
    digest BLOB NOT NULL,
    -- of the turn's header or tombstone
    row_id INTEGER NOT NULL,
    is_of_words INTEGER NOT NULL,
    PRIMARY KEY (tenant, digest)
) WITHOUT ROWID;

CREATE INDEX imported_turns_row_id ON imported_turns (row_id);

-- The turns that have no end, each with the store that runs it (0: none, a node is to claim it), how
-- many stores died while they ran it, and since when none does: a handful of rows at any time.
CREATE TABLE running (
    row_id INTEGER PRIMARY KEY,
    owner INTEGER NOT NULL,
    claims INTEGER NOT NULL DEFAULT 0,
    given_up_at REAL
);

-- The serving processes (turn/node_protocols.py), by the owner that each is in the table above.
CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    url TEXT,
    started_at REAL NOT NULL,
    is_draining INTEGER NOT NULL DEFAULT 0,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL
);

-- What the nodes know each other by: one row, from the first one on.
CREATE TABLE node_secret (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    secret BLOB NOT NULL
);

-- The turns that ended with calls which a person has to agree to, until they are continued.
CREATE TABLE waiting (
    row_id INTEGER PRIMARY KEY
);

-- Images, stored once per tenant and hash. Rows of the log of kind 5, right after a turn's
-- header, say which turn uses which. A blob is written in the transaction that adds its first
-- use and erased in the one that removes its last, so no crash leaves one without the other.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- SHA-256 of data
    hash BLOB NOT NULL,
    -- last, as it fills pages of its own
    data BLOB NOT NULL
);

CREATE UNIQUE INDEX blobs_hash ON blobs (tenant, hash);

-- Conversations: named heads of chains. A turn's beginning sets active to the turn and head to
-- its parent; its end writes nothing here (stores/sqlite/reader.py).
CREATE TABLE conversations (
    -- 16 bytes, as the id of a response
    id BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    -- responses.id of the newest turn that counts, and of the newest that has begun
    head BLOB,
    active BLOB,
    -- texts.id of its JSON
    metadata INTEGER NOT NULL
);

CREATE INDEX conversations_recent ON conversations (tenant, created_at, id);

-- What the ended turns used, by tenant, day (of UTC, since 1970), model and API key. An erasure
-- leaves it.
CREATE TABLE usage_sums (
    tenant TEXT NOT NULL,
    day INTEGER NOT NULL,
    model TEXT NOT NULL,
    -- api_keys.id; empty: they came without a key
    key_id TEXT NOT NULL,
    turns INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost REAL,
    PRIMARY KEY (tenant, day, model, key_id)
) WITHOUT ROWID;

-- What the commits changed, for those who follow along: ids, and never words. One row a commit,
-- of which only the newest stay (stores/sqlite/change_log.py).
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    -- random: it distinguishes the row from one of another copy of the file
    mark INTEGER NOT NULL,
    body BLOB NOT NULL,
    -- what the commit changes of chats, sums of usage and turns that wait for the index, until that
    -- is written there (stores/sqlite/deferred_changes.py)
    deferred BLOB
);

-- API keys, by the SHA-256 of each. A revoked one keeps its row: once a key has been made,
-- every request needs one.
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    name TEXT,
    revoked_at REAL
) WITHOUT ROWID;

-- Links that show a chain to whoever has them, by the SHA-256 of each one's secret.
CREATE TABLE shares (
    id TEXT PRIMARY KEY,
    sha256 BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    -- 16 bytes of the response that the chain ends with
    response_id BLOB NOT NULL,
    created_at REAL NOT NULL,
    -- NULL: until it is revoked
    expires_at REAL
) WITHOUT ROWID;

CREATE INDEX shares_recent ON shares (tenant, created_at, id);

CREATE INDEX shares_expiry ON shares (expires_at) WHERE expires_at IS NOT NULL;

-- Idempotency: what keys were used for in the last day, by the SHA-256 of each.
-- result_id NULL: reserved, not completed yet.
CREATE TABLE idempotency_records (
    tenant TEXT NOT NULL,
    sha256 BLOB NOT NULL,
    -- a hash of the request
    fingerprint BLOB NOT NULL,
    created_at REAL NOT NULL,
    -- the store whose request it is, as in running
    owner INTEGER NOT NULL DEFAULT 0,
    result_id TEXT,
    PRIMARY KEY (tenant, sha256)
) WITHOUT ROWID;

CREATE INDEX idempotency_records_created ON idempotency_records (created_at);

-- Import jobs of the last day, for processes that do not run them: counts, and no words.
CREATE TABLE imports (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- the store that runs it, as in running
    owner INTEGER NOT NULL,
    stored_at REAL NOT NULL,
    -- JSON
    body BLOB NOT NULL
) WITHOUT ROWID;

CREATE INDEX imports_stored ON imports (stored_at);

CREATE INDEX imports_tenant ON imports (tenant, stored_at);

-- What this store is a copy of, until it is used, and up to which family of that (store_copy.py).
CREATE TABLE copy_marks (
    source TEXT PRIMARY KEY,
    position INTEGER NOT NULL
) WITHOUT ROWID;

-- Full-text search: an inverted index in immutable segments, each of many turns of one tenant.
-- Erasing anything from a turn that is in a segment still deletes that in the same statement, and
-- the segment's other turns are indexed again. What segments contain is encrypted, each under a secret of its own
-- (stores/sqlite/search/segment.py). SQLite leaves copies of rows that it moves in the unused parts
-- of pages, where secure_delete does not reach; without the secret they say nothing.

-- The ended turns that are in no segment, by the row id of their header: they are added as chats are
-- updated. The revision grows with each change of the turn's text, so that an index made of
-- older text is rejected. It is the time of the end, in milliseconds, and 20 random bits: the newest
-- are searched first.
CREATE TABLE search_pending (
    row_id INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL
);

CREATE INDEX search_pending_newest ON search_pending (revision);

-- The secrets of segments and of groups, which have their ids from here. Rows are only added at the
-- end, so that SQLite moves none, and never deleted: a secret that is not needed any more
-- is overwritten where it is, with zeros, and its row is used again.
CREATE TABLE search_secrets (
    id INTEGER PRIMARY KEY,
    secret BLOB NOT NULL
);

CREATE INDEX search_secrets_free ON search_secrets (id)
WHERE secret = x'00000000000000000000000000000000';

CREATE TABLE search_segments (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- how many turns are in it, and how many words they have
    turns INTEGER NOT NULL,
    words INTEGER NOT NULL,
    -- how many buckets its terms are divided into
    bucket_count INTEGER NOT NULL,
    -- the group that it belongs to
    group_id INTEGER,
    -- row ids of its turns, as JSON, and 12 bytes per turn: time, words
    row_ids TEXT NOT NULL,
    turn_entries BLOB NOT NULL
);

-- What every search reads of every segment that is in no group.
CREATE INDEX search_segments_single ON search_segments (tenant, turns, id, words, bucket_count)
WHERE group_id IS NULL;

CREATE INDEX search_segments_group ON search_segments (group_id) WHERE group_id IS NOT NULL;

-- Groups of 32 segments: which of them have which terms, so that a search reads only those. A group
-- goes with the first of its segments that does: what it says of the others would tell what words
-- the erased turn had.
CREATE TABLE search_groups (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    turns INTEGER NOT NULL,
    words INTEGER NOT NULL,
    bucket_count INTEGER NOT NULL,
    -- ids of its segments, as JSON
    segments TEXT NOT NULL
);

CREATE INDEX search_groups_tenant ON search_groups (tenant);

CREATE TABLE search_segment_turns (
    row_id INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL
);

-- Postings of some hundred terms each: a row per term would take ten times as long to write.
CREATE TABLE search_buckets (
    -- that of the segment or group, times 65536, and the bucket's number
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL
);

CREATE TRIGGER search_segment_deleted AFTER DELETE ON search_segments BEGIN
    UPDATE search_secrets SET secret = x'00000000000000000000000000000000' WHERE id = OLD.id;
    DELETE FROM search_buckets WHERE id BETWEEN OLD.id << 16 AND OLD.id << 16 | 65535;
    INSERT OR IGNORE INTO search_pending (row_id, revision)
    SELECT value, random() & 1048575 FROM json_each(OLD.row_ids);
    DELETE FROM search_segment_turns WHERE row_id IN (SELECT value FROM json_each(OLD.row_ids));
    DELETE FROM search_groups WHERE id = OLD.group_id;
END;

CREATE TRIGGER search_group_deleted AFTER DELETE ON search_groups BEGIN
    UPDATE search_secrets SET secret = x'00000000000000000000000000000000' WHERE id = OLD.id;
    DELETE FROM search_buckets WHERE id BETWEEN OLD.id << 16 AND OLD.id << 16 | 65535;
    UPDATE search_segments SET group_id = NULL WHERE group_id = OLD.id;
END;

-- An item (kind 1, 2) is erased with its turn, or replaced by another.
CREATE TRIGGER search_item_deleted AFTER DELETE ON log WHEN OLD.kind IN (1, 2) BEGIN
    UPDATE search_pending SET revision = revision + 1 WHERE row_id = OLD.row_id & ~32767;
    DELETE FROM search_segments
    WHERE id = (SELECT segment FROM search_segment_turns WHERE row_id = OLD.row_id & ~32767);
END;

CREATE TRIGGER search_item_updated AFTER UPDATE ON log WHEN OLD.kind IN (1, 2) BEGIN
    UPDATE search_pending SET revision = revision + 1 WHERE row_id = OLD.row_id & ~32767;
    DELETE FROM search_segments
    WHERE id = (SELECT segment FROM search_segment_turns WHERE row_id = OLD.row_id & ~32767);
END;
