-- name: secret
SELECT secret FROM search_secret WHERE id = 1

-- name: add_secret
INSERT INTO search_secret (id, secret) VALUES (1, $1) ON CONFLICT (id) DO NOTHING

-- name: pending
-- The newest: ids of threads are times.
SELECT tenant, tree, thread, seq, revision FROM search_pending
WHERE tenant = $1 ORDER BY thread DESC, seq DESC LIMIT $2

-- name: pending_of_all
SELECT tenant, tree, thread, seq, revision FROM search_pending LIMIT $1

-- name: pending_of_node
-- The share of one of the nodes that live, so that no two index the same turns.
WITH nodes_alive AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY id) - 1 AS number, count(*) OVER () AS count
    FROM nodes WHERE is_node AND lease_until > now()
), share AS MATERIALIZED (
    SELECT number, count FROM nodes_alive WHERE id = $2
)
SELECT tenant, tree, thread, seq, revision FROM search_pending
WHERE thread % coalesce((SELECT count FROM share), 1) = coalesce((SELECT number FROM share), 0)
LIMIT $1

-- name: count_pending_of_all
SELECT count(*) FROM (SELECT 1 FROM search_pending LIMIT $1) AS counted

-- name: count_pending
SELECT count(*) FROM (SELECT 1 FROM search_pending WHERE tenant = $1 LIMIT $2) AS counted

-- name: texts
-- The items of turns, part by part, and when each turn was created.
SELECT l.tree, l.thread, l.seq, l.created_at, l.input, l.output
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS t (tree, thread, seq)
JOIN log AS l ON l.tree = t.tree AND l.thread = t.thread AND l.seq = t.seq
ORDER BY l.tree, l.thread, l.seq, l.part

-- name: add_terms
INSERT INTO search_terms (tenant, tree, thread, seq, created_at, words, terms)
SELECT tenant, tree, thread, seq, created_at, words, terms::tsvector
FROM unnest(
    $1::text[], $2::bigint[], $3::bigint[], $4::integer[], $5::double precision[], $6::integer[],
    $7::text[]
) AS t (tenant, tree, thread, seq, created_at, words, terms)
ON CONFLICT (tenant, tree, thread, seq) DO NOTHING

-- name: take_pending
-- Those that are as they were read. What another transaction is at stays with it.
DELETE FROM search_pending WHERE (tenant, tree, thread, seq) IN (
    SELECT p.tenant, p.tree, p.thread, p.seq
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[], $5::bigint[])
        AS t (tenant, tree, thread, seq, revision)
    JOIN search_pending AS p ON p.tenant = t.tenant AND p.tree = t.tree AND p.thread = t.thread
        AND p.seq = t.seq AND p.revision = t.revision
    FOR UPDATE OF p SKIP LOCKED
)
RETURNING tree, thread, seq

-- name: delete_pending
DELETE FROM search_pending AS p
USING unnest($2::bigint[], $3::bigint[], $4::integer[]) AS t (tree, thread, seq)
WHERE p.tenant = $1 AND p.tree = t.tree AND p.thread = t.thread AND p.seq = t.seq

-- name: add_pending
-- Waits for whoever indexes the turn, unlike DO NOTHING.
INSERT INTO search_pending (tenant, tree, thread, seq, revision)
SELECT $1, tree, thread, seq, floor(random() * 4611686018427387904)::bigint
FROM unnest($2::bigint[], $3::bigint[], $4::integer[]) AS t (tree, thread, seq)
ON CONFLICT (tenant, tree, thread, seq) DO UPDATE SET revision = excluded.revision

-- name: delete_terms
DELETE FROM search_terms AS s
USING unnest($2::bigint[], $3::bigint[], $4::integer[]) AS t (tree, thread, seq)
WHERE s.tenant = $1 AND s.tree = t.tree AND s.thread = t.thread AND s.seq = t.seq
RETURNING s.words

-- name: add_totals
INSERT INTO search_totals (tenant, id, turns, words)
SELECT tenant, id, turns, words
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS t (tenant, id, turns, words)

-- name: totals
SELECT coalesce(sum(turns), 0)::bigint, coalesce(sum(words), 0)::bigint, count(*)
FROM search_totals WHERE tenant = $1

-- name: totals_of_chat
SELECT count(*), coalesce(sum(words), 0)::bigint, 0
FROM search_terms WHERE tenant = $1 AND tree = $2

-- name: join_totals
-- Many rows as one; those that are being added or joined elsewhere stay.
WITH old AS (
    SELECT id FROM search_totals WHERE tenant = $1 FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM search_totals WHERE tenant = $1 AND id IN (SELECT id FROM old)
    RETURNING turns, words
)
INSERT INTO search_totals (tenant, id, turns, words)
SELECT $1, $2::bigint, coalesce(sum(turns), 0), coalesce(sum(words), 0) FROM gone

-- name: counts
-- How many turns have each term, of very many so many. A tree: of that one's.
SELECT (
    SELECT count(*) FROM (
        SELECT 1 FROM search_terms
        WHERE tenant = $1 AND terms @@ t.term AND ($4::bigint IS NULL OR tree = $4) LIMIT $3
    ) AS counted
)
FROM (
    SELECT term::tsquery, number FROM unnest($2::text[]) WITH ORDINALITY AS t (term, number)
    -- So that each is parsed once, and not for every row.
    OFFSET 0
) AS t
ORDER BY t.number

-- name: best
-- The turns that have all terms, the best by BM25 first, from behind one on where that is given, and
-- of one tree where that is; or of each tree only the best.
-- ts_rank of a lexeme that a turn has n times, with the weight 1, is the sum of 1/k² up to n,
-- divided by π²/6: what is missing of 1 tells n.
WITH matching AS MATERIALIZED (
    SELECT s.tree, s.thread, s.seq, s.created_at, (
        SELECT sum(weight * n / (n + $4::float8 + $5::float8 * s.words))
        FROM (
            SELECT t.weight, round(1 / (1.64493406684823 - 1.64493406685 * ts_rank(
                '{1,1,1,1}', s.terms, t.term::tsquery
            )::float8) - 0.5) AS n
            FROM unnest($2::text[], $3::float8[]) AS t (term, weight)
        ) AS counted
    ) AS score
    FROM search_terms AS s
    -- In a query of its own it is parsed once, and not for every row.
    WHERE s.tenant = $1 AND s.terms @@ (SELECT array_to_string($2::text[], '&')::tsquery)
    AND ($11::bigint IS NULL OR s.tree = $11)
), cursor AS MATERIALIZED (
    -- Looked for once, and not for every row.
    SELECT score, created_at, tree, thread, seq FROM matching
    WHERE (tree, thread, seq) = ($6::bigint, $7::bigint, $8::integer)
), ranked AS (
    SELECT *, 1 AS place FROM matching WHERE NOT $12::boolean
    UNION ALL
    SELECT *, row_number() OVER (
        PARTITION BY tree ORDER BY score DESC, created_at DESC, thread, seq
    )
    FROM matching WHERE $12::boolean
)
SELECT m.tree, m.thread, m.seq, m.created_at
FROM ranked AS m
LEFT JOIN cursor AS c ON true
WHERE m.place = 1 AND (
    $6::bigint IS NULL
    OR (-m.score, -m.created_at, m.tree, m.thread, m.seq)
        > (-c.score, -c.created_at, c.tree, c.thread, c.seq)
)
ORDER BY m.score DESC, m.created_at DESC, m.tree, m.thread, m.seq LIMIT $9 OFFSET $10

-- name: where
-- Where a response lies that is not erased and has the terms.
SELECT r.tree, r.thread, r.seq
FROM responses AS r
JOIN search_terms AS s USING (tenant, tree, thread, seq)
WHERE r.tenant = $1 AND r.id = $2 AND r.timestamp IS NOT NULL
AND s.terms @@ array_to_string($3::text[], '&')::tsquery
AND ($4::bigint IS NULL OR s.tree = $4)

-- name: headers
SELECT l.tree, l.thread, l.seq, l.key, l.created_at, l.header
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS t (tree, thread, seq)
JOIN log AS l ON l.tree = t.tree AND l.thread = t.thread AND l.seq = t.seq AND l.part = 0
WHERE l.header IS NOT NULL
