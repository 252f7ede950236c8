-- A turn is named by (tree, thread, seq): the first thread of its family of branches, its own
-- thread, and its depth in the chain. What belongs to a turn leads with the tree, what belongs to a
-- tenant with the tenant, so that a distributed database can divide every table by its first column.
-- Ids of threads are times with random bits (stores/postgres/rows.py): no sequence is shared.

CREATE TABLE threads (
    tree bigint NOT NULL,
    id bigint NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    -- the turn that it branches off; NULL: it is one that its tree began with
    parent_thread bigint,
    parent_seq integer,
    PRIMARY KEY (tree, id)
);

CREATE INDEX threads_parent ON threads (tree, parent_thread, parent_seq)
WHERE parent_thread IS NOT NULL;

-- Turns: part 0 is the beginning, the others are what came later. A part is written once.
-- A tombstone is a part 0 without header.
CREATE TABLE log (
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    part integer NOT NULL,
    -- of part 0: 16 bytes of the id of the response, and of the one that it continues
    key bytea,
    previous bytea,
    created_at double precision,
    -- the time that its expiry counts from: never earlier than its parent's
    timestamp double precision,
    -- JSON
    header bytea,
    -- the SHA-256s of the images that it uses, one behind the other
    images bytea,
    -- items: a msgpack array of byte strings
    input bytea,
    output bytea,
    -- JSON, in the last part of a turn that has ended
    ending bytea,
    -- whether the output has a summary of the turns before
    has_summary boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tree, thread, seq, part)
);

-- Where a response lies. An erased one keeps its row, for what still points at it. Led by the id,
-- which no two tenants may have.
CREATE TABLE responses (
    id bytea PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    -- as in the log; NULL: it was erased
    timestamp double precision,
    -- id of the conversation that the request named
    conversation bytea
);

CREATE INDEX responses_recent ON responses (tenant, timestamp, thread, seq)
WHERE timestamp IS NOT NULL;

CREATE INDEX responses_conversation ON responses (tenant, conversation)
WHERE conversation IS NOT NULL;

-- Chats: one row per tree, for as long as it has rows in the log. Its lock orders what begins and
-- what is erased in the tree.
CREATE TABLE chats (
    tree bigint PRIMARY KEY,
    -- how often something was erased from it: caches compare it
    epoch bigint NOT NULL DEFAULT 0,
    -- of its first turn's response
    key bytea NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    -- the timestamp of its newest turn; of an imported chat when it was last written to where it
    -- comes from
    updated_at double precision NOT NULL,
    -- its newest turn, which has the greatest timestamp, thread and seq; NULL: all are erased
    newest_thread bigint,
    newest_seq integer,
    -- when turns of it were last imported: its expiry counts from then if that is later
    imported_at double precision,
    -- how many threads have turns: erased ones are none
    branches integer NOT NULL,
    -- conversations.id of the one that its first turn was begun on
    conversation bytea,
    is_pinned boolean NOT NULL DEFAULT false,
    -- its turns do not expire
    is_permanent boolean NOT NULL DEFAULT false,
    -- UTF-8; NULL: the first words are its title
    title bytea,
    -- a model made the title of the words of its turns, and it goes with any of them
    is_title_generated boolean NOT NULL DEFAULT false,
    -- JSON
    metadata bytea,
    input_tokens bigint NOT NULL DEFAULT 0,
    cached_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cost double precision,
    -- no turn of it expires before its retention counted from then; NULL: it has no turns;
    -- infinity: it is permanent
    check_at double precision
);

CREATE INDEX chats_key ON chats (tenant, key);

CREATE INDEX chats_recent ON chats (tenant, updated_at, tree) WHERE newest_thread IS NOT NULL;

CREATE INDEX chats_pinned ON chats (tenant) WHERE is_pinned;

CREATE INDEX chats_check ON chats (check_at) WHERE check_at IS NOT NULL;

CREATE INDEX chats_tenant_check ON chats (tenant, check_at) WHERE check_at IS NOT NULL;

-- The turns that have no end, each with the node that runs it.
CREATE TABLE running (
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    -- nodes.id; 0: any node may take it
    node bigint NOT NULL,
    -- of its response
    tenant text COLLATE "C" NOT NULL,
    key bytea NOT NULL,
    -- how many processes died while they ran it
    claims integer NOT NULL DEFAULT 0,
    -- since when no node has it, where none does
    given_up_at double precision,
    PRIMARY KEY (tree, thread, seq)
);

CREATE INDEX running_node ON running (node);

CREATE INDEX running_tenant ON running (tenant);

-- The turns that ended with calls which a person has to agree to, until they are continued.
CREATE TABLE waiting (
    tenant text COLLATE "C" NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    PRIMARY KEY (tenant, tree, thread, seq)
);

-- Turns by the fingerprint of their chain (core/chain_fingerprints.py). It is a hash of all that was
-- said until a turn ended, so a row goes when anything of that is erased.
CREATE TABLE chain_fingerprints (
    tenant text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    -- of its response
    key bytea NOT NULL,
    PRIMARY KEY (tenant, fingerprint, tree, thread, seq)
);

CREATE INDEX chain_fingerprints_turn ON chain_fingerprints (tree, thread, seq);

-- Turns that were imported, by a digest that an import knows them by again. One that is of names
-- alone stays when its turn is erased; one that is of words goes with them, and with all words
-- before them.
CREATE TABLE imported_turns (
    tenant text COLLATE "C" NOT NULL,
    digest bytea NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    is_of_words boolean NOT NULL,
    PRIMARY KEY (tenant, digest)
);

CREATE INDEX imported_turns_turn ON imported_turns (tree, thread, seq);

-- Images, stored once per tenant and SHA-256, and the turns that use each. A blob comes and goes in
-- the transaction of its first and its last use.
CREATE TABLE blobs (
    tenant text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (tenant, hash)
);

-- Images are compressed as they are.
ALTER TABLE blobs ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE blob_uses (
    tenant text COLLATE "C" NOT NULL,
    hash bytea NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    PRIMARY KEY (tenant, hash, tree, thread, seq)
);

-- Conversations: named heads of chains. A turn's beginning sets active to the turn and head to
-- its parent; its end writes nothing here.
CREATE TABLE conversations (
    tenant text COLLATE "C" NOT NULL,
    -- 16 bytes, as the id of a response
    id bytea NOT NULL,
    created_at double precision NOT NULL,
    -- responses.id of the newest turn that counts, and of the newest that has begun
    head bytea,
    active bytea,
    -- JSON
    metadata bytea NOT NULL,
    -- it does not expire before its retention counted from then
    check_at double precision NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE INDEX conversations_recent ON conversations (tenant, created_at, id);

CREATE INDEX conversations_check ON conversations (check_at);

CREATE INDEX conversations_tenant_check ON conversations (tenant, check_at);

-- What the ended turns used, by tenant, day (of UTC, since 1970), model and API key. An erasure
-- leaves it. In several rows, so that nodes which write at the same time hardly ever wait for each
-- other.
CREATE TABLE usage_sums (
    tenant text COLLATE "C" NOT NULL,
    day integer NOT NULL,
    -- UTF-8
    model bytea NOT NULL,
    -- api_keys.id; empty: they came without a key
    key_id text COLLATE "C" NOT NULL,
    -- by the node
    slot smallint NOT NULL,
    turns bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost double precision,
    PRIMARY KEY (tenant, day, model, key_id, slot)
);

-- Idempotency: what keys were used for in the last day, by the SHA-256 of each.
-- result_id NULL: reserved, not completed yet.
CREATE TABLE idempotency_records (
    tenant text COLLATE "C" NOT NULL,
    sha256 bytea NOT NULL,
    -- a hash of the request
    fingerprint bytea NOT NULL,
    created_at double precision NOT NULL,
    -- the process whose request it is
    node bigint NOT NULL DEFAULT 0,
    result_id text,
    PRIMARY KEY (tenant, sha256)
);

CREATE INDEX blob_uses_turn ON blob_uses (tree, thread, seq);

CREATE INDEX idempotency_records_created ON idempotency_records (created_at);

-- Links that show a chain to whoever has them, by the SHA-256 of each one's secret.
CREATE TABLE shares (
    sha256 bytea PRIMARY KEY,
    id text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    -- 16 bytes of the response that the chain ends with
    response_id bytea NOT NULL,
    created_at double precision NOT NULL,
    -- NULL: until it is revoked
    expires_at double precision
);

CREATE INDEX shares_recent ON shares (tenant, created_at, id);

CREATE INDEX shares_expiry ON shares (expires_at) WHERE expires_at IS NOT NULL;

-- Import jobs of the last day, for processes that do not run them: counts, and no words.
CREATE TABLE imports (
    id text COLLATE "C" PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    -- the process that runs it
    node bigint NOT NULL,
    stored_at double precision NOT NULL,
    -- JSON
    body bytea NOT NULL
);

CREATE INDEX imports_stored ON imports (stored_at);

CREATE INDEX imports_tenant ON imports (tenant, stored_at);

-- API keys, by the SHA-256 of each. A revoked one keeps its row: once a key has been made,
-- every request needs one.
CREATE TABLE api_keys (
    sha256 bytea PRIMARY KEY,
    id text COLLATE "C" NOT NULL UNIQUE,
    tenant text COLLATE "C" NOT NULL,
    created_at double precision NOT NULL,
    name text,
    revoked_at double precision
);

-- What the transactions changed, for those who follow along: ids, and never words. One row a
-- transaction, named by its number, of which only the newest stay.
CREATE TABLE changes (
    id bigint PRIMARY KEY,
    -- random: it distinguishes the row from one of another copy of the database
    mark bigint NOT NULL,
    body bytea NOT NULL
);

-- The processes that have the store open. One whose lease is over is dead.
CREATE TABLE nodes (
    id bigint PRIMARY KEY,
    lease_until timestamptz NOT NULL,
    -- whether it serves, and where others reach it
    is_node boolean NOT NULL DEFAULT false,
    url text,
    started_at double precision NOT NULL,
    is_draining boolean NOT NULL DEFAULT false,
    -- somebody follows the feed there
    is_following boolean NOT NULL DEFAULT false,
    host text NOT NULL DEFAULT '',
    pid integer NOT NULL DEFAULT 0,
    version text NOT NULL DEFAULT ''
);

-- What nodes authorise each other by.
CREATE TABLE node_secret (
    id integer PRIMARY KEY,
    secret text NOT NULL
);

-- Erasures whose rows are still in the files: one row a transaction. They go when the tables have
-- been vacuumed.
CREATE TABLE erasures (
    -- of the transaction
    id bigint PRIMARY KEY,
    erased_at double precision NOT NULL,
    tables text[] NOT NULL
);

-- When the rows of erasures last left the tables.
CREATE TABLE vacuums (
    id integer PRIMARY KEY,
    -- of the last erasure whose rows are gone, and when they went
    erased_at double precision NOT NULL,
    vacuumed_at double precision NOT NULL
);

-- What a commit writes or depends on: a parameter is an array of these. One array of rows takes half
-- as much as one for each column, here and in the server.
CREATE TYPE tree_values AS (tree bigint, epoch bigint);

CREATE TYPE turn_values AS (tree bigint, thread bigint, seq integer);

CREATE TYPE parent_values AS (tree bigint, thread bigint, seq integer, key bytea);

CREATE TYPE tenant_turn_values AS (tenant text, tree bigint, thread bigint, seq integer);

CREATE TYPE thread_values AS (
    tree bigint, id bigint, tenant text, parent_thread bigint, parent_seq integer
);

CREATE TYPE response_values AS (
    tenant text, id bytea, tree bigint, thread bigint, seq integer, timestamp double precision,
    conversation bytea
);

CREATE TYPE running_values AS (tenant text, key bytea, tree bigint, thread bigint, seq integer);

CREATE TYPE log_values AS (
    tree bigint, thread bigint, seq integer, part integer, key bytea, previous bytea,
    created_at double precision, timestamp double precision, header bytea, images bytea,
    input bytea, output bytea, ending bytea, has_summary boolean
);

CREATE TYPE fingerprint_values AS (
    tenant text, fingerprint bytea, tree bigint, thread bigint, seq integer, key bytea
);

CREATE TYPE chat_values AS (
    tree bigint, key bytea, tenant text, conversation bytea, at double precision, thread bigint,
    seq integer, branches integer, input bigint, cached bigint, output bigint,
    cost double precision, oldest double precision
);

CREATE TYPE usage_values AS (
    tenant text, day integer, model bytea, key_id text, turns bigint, input bigint, cached bigint,
    output bigint, cost double precision
);
