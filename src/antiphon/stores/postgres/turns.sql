-- name: head
-- A response, its tree's epoch, and the node that runs it with whether that is alive.
SELECT r.tree, r.thread, r.seq, r.timestamp, c.epoch, u.node, n.id
FROM responses AS r
JOIN chats AS c ON c.tree = r.tree
LEFT JOIN running AS u ON u.tree = r.tree AND u.thread = r.thread AND u.seq = r.seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()
WHERE r.tenant = $1 AND r.id = $2 AND r.timestamp IS NOT NULL

-- name: heads
-- The same of several: tenants, responses, and how many turns up to each in its thread are wanted.
-- A row of the log each, in front of the number in the list and the columns above; where no turns
-- are wanted these stand alone.
SELECT l.thread, l.seq, l.part, l.key, l.previous, NULL,
    CASE WHEN l.header IS NOT NULL THEN true END, l.images, l.input, l.output, l.ending,
    w.number, r.tree, r.thread, r.seq, r.timestamp, c.epoch, u.node, n.id
FROM unnest($1::text[], $2::bytea[], $3::integer[])
    WITH ORDINALITY AS w (tenant, id, turns, number)
JOIN responses AS r ON r.tenant = w.tenant AND r.id = w.id AND r.timestamp IS NOT NULL
JOIN chats AS c ON c.tree = r.tree
LEFT JOIN running AS u ON u.tree = r.tree AND u.thread = r.thread AND u.seq = r.seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()
LEFT JOIN LATERAL (
    SELECT * FROM log
    WHERE log.tree = r.tree AND log.thread = r.thread
    AND log.seq BETWEEN r.seq - w.turns + 1 AND r.seq
    ORDER BY log.tree, log.thread, log.seq, log.part OFFSET 0
) AS l ON true
ORDER BY w.number, l.seq, l.part

-- name: turn_key
SELECT tree, thread, seq FROM responses WHERE tenant = $1 AND id = $2 AND timestamp IS NOT NULL

-- name: latest_timestamp
-- The latest timestamp of the turn at ($1, $2, $3) and its descendants: of each thread the last
-- turn that is not erased has it. Infinity: their chat is permanent. NULL: all are erased.
WITH RECURSIVE span (thread, seq) AS (
    SELECT $2::bigint, $3::integer
    UNION ALL
    SELECT t.id, 0
    FROM span JOIN threads AS t
    ON t.tree = $1 AND t.parent_thread = span.thread AND t.parent_seq >= span.seq
)
SELECT CASE
    WHEN latest IS NOT NULL AND (SELECT is_permanent FROM chats WHERE tree = $1)
    THEN 'Infinity'::float8 ELSE latest
END
FROM (
    SELECT max((
        SELECT l.timestamp FROM log AS l
        WHERE l.tree = $1 AND l.thread = span.thread AND l.seq >= span.seq AND l.part = 0
        AND l.header IS NOT NULL
        ORDER BY l.seq DESC LIMIT 1
    )) AS latest
    FROM span
) AS found

-- name: chain
-- The rows of the chain that ends at ($1, $2, $3) of the tenant $4, oldest first.
WITH RECURSIVE part (thread, seq, parent_thread, parent_seq, depth) AS (
    SELECT t.id, $3::integer, t.parent_thread, t.parent_seq, 0
    FROM threads AS t WHERE t.tree = $1 AND t.id = $2 AND t.tenant = $4
    UNION ALL
    SELECT t.id, part.parent_seq, t.parent_thread, t.parent_seq, part.depth + 1
    FROM part JOIN threads AS t ON t.tree = $1 AND t.id = part.parent_thread
)
SELECT l.thread, l.seq, l.part, l.key, l.previous, l.created_at, l.header, l.images, l.input,
    l.output, l.ending
FROM part CROSS JOIN LATERAL (
    SELECT * FROM log
    WHERE log.tree = $1 AND log.thread = part.thread AND log.seq <= part.seq
    ORDER BY log.thread, log.seq, log.part OFFSET 0
) AS l
ORDER BY part.depth DESC, l.seq, l.part

-- name: history
-- The same without the headers, where the tree has the epoch $5 still.
WITH RECURSIVE part (thread, seq, parent_thread, parent_seq, depth) AS (
    SELECT t.id, $3::integer, t.parent_thread, t.parent_seq, 0
    FROM threads AS t JOIN chats AS c ON c.tree = $1 AND c.epoch = $5
    WHERE t.tree = $1 AND t.id = $2 AND t.tenant = $4
    UNION ALL
    SELECT t.id, part.parent_seq, t.parent_thread, t.parent_seq, part.depth + 1
    FROM part JOIN threads AS t ON t.tree = $1 AND t.id = part.parent_thread
)
SELECT l.thread, l.seq, l.part, l.key, l.previous, NULL,
    CASE WHEN l.header IS NOT NULL THEN true END, l.images, l.input, l.output, l.ending
FROM part CROSS JOIN LATERAL (
    SELECT * FROM log
    WHERE log.tree = $1 AND log.thread = part.thread AND log.seq <= part.seq
    ORDER BY log.thread, log.seq, log.part OFFSET 0
) AS l
ORDER BY part.depth DESC, l.seq, l.part

-- name: chain_parts
-- The last turn of each part of a chain: one part a thread, oldest first.
WITH RECURSIVE part (thread, seq, parent_thread, parent_seq, depth) AS (
    SELECT t.id, $3::integer, t.parent_thread, t.parent_seq, 0
    FROM threads AS t WHERE t.tree = $1 AND t.id = $2 AND t.tenant = $4
    UNION ALL
    SELECT t.id, part.parent_seq, t.parent_thread, t.parent_seq, part.depth + 1
    FROM part JOIN threads AS t ON t.tree = $1 AND t.id = part.parent_thread
)
SELECT part.thread, part.seq FROM part ORDER BY part.depth DESC

-- name: turns
-- The rows of turns, in the order that they are named.
SELECT l.thread, l.seq, l.part, l.key, l.previous, l.created_at, l.header, l.images, l.input,
    l.output, l.ending
FROM unnest($1::bigint[], $2::bigint[], $3::integer[])
    WITH ORDINALITY AS w (tree, thread, seq, number)
CROSS JOIN LATERAL (
    SELECT * FROM log
    WHERE log.tree = w.tree AND log.thread = w.thread AND log.seq = w.seq
    ORDER BY log.part OFFSET 0
) AS l
ORDER BY w.number, l.part

-- name: owners
-- The nodes that run turns, and whether each is alive.
SELECT u.node, n.id
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS w (tree, thread, seq)
JOIN running AS u ON u.tree = w.tree AND u.thread = w.thread AND u.seq = w.seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()

-- name: dead_nodes
-- The nodes of running turns that are dead.
SELECT DISTINCT u.node FROM running AS u
WHERE NOT EXISTS (SELECT 1 FROM nodes AS n WHERE n.id = u.node AND n.lease_until > now())

-- name: living_forwards
-- The first so many turns between two of a thread that are not erased.
SELECT seq FROM log
WHERE tree = $1 AND thread = $2 AND seq BETWEEN $3 AND $4 AND part = 0 AND header IS NOT NULL
ORDER BY seq LIMIT $5

-- name: living_backwards
-- The last so many of them, the last first.
SELECT seq FROM log
WHERE tree = $1 AND thread = $2 AND seq BETWEEN $3 AND $4 AND part = 0 AND header IS NOT NULL
ORDER BY seq DESC LIMIT $5

-- name: blobs
SELECT hash, data FROM blobs WHERE tenant = $1 AND hash = ANY($2::bytea[])

-- name: begin
-- A transaction, which holds the row of the node that begins it: two statements, without values.
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT 1 FROM nodes WHERE id = {node} FOR KEY SHARE

-- name: lock
-- Locks the chats of trees, and then running turns: their epochs, and the nodes that run them.
WITH locked AS MATERIALIZED (
    SELECT tree, epoch FROM chats WHERE tree = ANY($1::bigint[]) ORDER BY tree FOR UPDATE
), held AS MATERIALIZED (
    SELECT u.tree, u.thread, u.seq, u.node
    FROM unnest($2::bigint[], $3::bigint[], $4::integer[]) AS w (tree, thread, seq)
    JOIN running AS u ON u.tree = w.tree AND u.thread = w.thread AND u.seq = w.seq
    ORDER BY u.tree, u.thread, u.seq FOR UPDATE OF u
)
SELECT tree, epoch, NULL::bigint, NULL::integer, NULL::bigint FROM locked
UNION ALL
SELECT tree, NULL, thread, seq, node FROM held

-- name: look_at_turns
-- The ids of turns, and whether the place behind each in its thread is taken.
SELECT w.tree, w.thread, w.seq, l.key, EXISTS (
    SELECT 1 FROM log AS next
    WHERE next.tree = w.tree AND next.thread = w.thread AND next.seq = w.seq + 1 AND next.part = 0
)
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS w (tree, thread, seq)
JOIN log AS l ON l.tree = w.tree AND l.thread = w.thread AND l.seq = w.seq AND l.part = 0

-- name: add_threads
INSERT INTO threads (tree, id, tenant, parent_thread, parent_seq)
SELECT * FROM unnest($1::thread_values[])

-- name: add_responses
INSERT INTO responses (tenant, id, tree, thread, seq, timestamp, conversation)
SELECT * FROM unnest($1::response_values[])

-- name: add_running
INSERT INTO running (tenant, key, tree, thread, seq, node)
SELECT w.*, $2::bigint FROM unnest($1::running_values[]) AS w

-- name: add_log
INSERT INTO log (
    tree, thread, seq, part, key, previous, created_at, timestamp, header, images, input, output,
    ending, has_summary
) SELECT * FROM unnest($1::log_values[])

-- name: end_running
DELETE FROM running AS u
USING unnest($1::turn_values[]) AS w
WHERE u.tree = w.tree AND u.thread = w.thread AND u.seq = w.seq

-- name: own_turn
SELECT tree, thread, seq, tenant, key FROM running
WHERE tree = $1 AND thread = $2 AND seq = $3 AND node = $4 FOR UPDATE

-- name: has_ended
SELECT 1 FROM log WHERE tree = $1 AND thread = $2 AND seq = $3 AND ending IS NOT NULL

-- name: end_owned
INSERT INTO log (tree, thread, seq, part, ending)
SELECT w.tree, w.thread, w.seq, 1 + (
    SELECT max(l.part) FROM log AS l
    WHERE l.tree = w.tree AND l.thread = w.thread AND l.seq = w.seq
), $4
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS w (tree, thread, seq)

-- name: add_blob
INSERT INTO blobs (tenant, hash, data) VALUES ($1, $2, $3) ON CONFLICT (tenant, hash) DO NOTHING

-- name: hold_blob
SELECT 1 FROM blobs WHERE tenant = $1 AND hash = $2 FOR KEY SHARE

-- name: add_blob_use
INSERT INTO blob_uses (tenant, hash, tree, thread, seq) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT DO NOTHING

-- name: add_fingerprints
-- Of turns that are not erased.
INSERT INTO chain_fingerprints (tenant, fingerprint, tree, thread, seq, key)
SELECT w.*
FROM unnest($1::fingerprint_values[]) AS w
JOIN responses AS r ON r.tenant = w.tenant AND r.id = w.key AND r.timestamp IS NOT NULL
ON CONFLICT DO NOTHING

-- name: add_searchable
INSERT INTO search_pending (tenant, tree, thread, seq)
SELECT * FROM unnest($1::tenant_turn_values[])
ON CONFLICT DO NOTHING

-- name: add_change
INSERT INTO changes (id, mark, body)
SELECT pg_current_xact_id()::text::bigint, floor(random() * 4294967296)::bigint, w.body
FROM unnest($1::bytea[]) AS w (body)
