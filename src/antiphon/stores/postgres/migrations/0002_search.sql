-- Full-text search: a row for each ended turn. Its terms are hashes, under a secret and the tenant
-- (stores/postgres/search/terms.py), so that an index of all tenants' terms finds those of one, and
-- holds no words: GIN keeps what it has had once.

CREATE TABLE search_terms (
    tenant text COLLATE "C" NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    created_at double precision NOT NULL,
    -- how many words the turn has
    words integer NOT NULL,
    -- each term with as many positions as there are of it
    terms tsvector NOT NULL,
    PRIMARY KEY (tenant, tree, thread, seq)
);

CREATE INDEX search_terms_terms ON search_terms USING gin (terms);

-- The ended turns that are not indexed yet. Whoever has indexed one deletes its row in the same
-- transaction; an erasure deletes it first, and so waits for that, and then what was indexed. The
-- revision differs after a change of the turn's text, so that an index of older text is rejected.
CREATE TABLE search_pending (
    tenant text COLLATE "C" NOT NULL,
    tree bigint NOT NULL,
    thread bigint NOT NULL,
    seq integer NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, tree, thread, seq)
);

-- How many turns and words are indexed, as sums that are added: two transactions never wait for each
-- other. Now and then several rows become one.
CREATE TABLE search_totals (
    tenant text COLLATE "C" NOT NULL,
    id bigint NOT NULL,
    turns bigint NOT NULL,
    words bigint NOT NULL,
    PRIMARY KEY (tenant, id)
);

CREATE TABLE search_secret (
    id integer PRIMARY KEY,
    secret bytea NOT NULL
);

-- What this store is a copy of, until it is used, and up to which family of that.
CREATE TABLE copy_marks (
    source text PRIMARY KEY,
    position bigint NOT NULL
);
