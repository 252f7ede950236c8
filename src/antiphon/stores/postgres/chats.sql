-- name: backwards
SELECT tree, updated_at FROM chats
WHERE tenant = $1 AND newest_thread IS NOT NULL AND (updated_at, tree) < ($2, $3)
ORDER BY updated_at DESC, tree DESC LIMIT $4

-- name: forwards
SELECT tree, updated_at FROM chats
WHERE tenant = $1 AND newest_thread IS NOT NULL AND (updated_at, tree) > ($2, $3)
ORDER BY updated_at, tree LIMIT $4

-- name: pinned
SELECT tree, updated_at FROM chats
WHERE tenant = $1 AND is_pinned AND newest_thread IS NOT NULL

-- name: running
-- The chats of a tenant whose newest turn has no end.
SELECT c.tree, c.updated_at
FROM running AS u
JOIN chats AS c ON c.tree = u.tree AND c.newest_thread = u.thread AND c.newest_seq = u.seq
WHERE u.tenant = $1

-- name: waiting
SELECT c.tree, c.updated_at
FROM waiting AS w
JOIN chats AS c ON c.tree = w.tree AND c.newest_thread = w.thread AND c.newest_seq = w.seq
WHERE w.tenant = $1

-- name: chat_position
-- And the timestamp that its expiry counts from; infinity: it is permanent.
SELECT updated_at, tree,
    CASE WHEN is_permanent THEN 'Infinity'::float8 ELSE greatest(updated_at, imported_at) END
FROM chats WHERE tenant = $1 AND key = $2 AND newest_thread IS NOT NULL

-- name: position_of_response
SELECT c.updated_at, c.tree,
    CASE WHEN c.is_permanent THEN 'Infinity'::float8 ELSE greatest(c.updated_at, c.imported_at) END
FROM responses AS r JOIN chats AS c ON c.tree = r.tree
WHERE r.tenant = $1 AND r.id = $2 AND r.timestamp IS NOT NULL AND c.newest_thread IS NOT NULL

-- name: chats
-- Chats of a tenant by their trees: their own fields; who runs the newest turn, and whether that
-- is alive; the active turn of their conversation, and its end; the input of their first turn, where
-- they have no title: of the first thread, or else of the newest one.
SELECT
    c.tree, c.tenant, c.key, c.created_at, c.updated_at, c.newest_thread, c.newest_seq, c.branches,
    c.conversation, c.is_pinned, c.is_permanent, c.title, c.metadata, c.input_tokens,
    c.cached_tokens, c.output_tokens, c.cost,
    CASE WHEN c.is_permanent THEN 'Infinity'::float8 ELSE greatest(c.updated_at, c.imported_at) END
        AS timestamp,
    u.node, n.id AS living_node, w.tree IS NOT NULL AS is_waiting,
    a.tree AS active_tree, a.thread AS active_thread, a.seq AS active_seq,
    ending.ending AS active_ending, ua.tree IS NOT NULL AS is_active_running,
    coalesce(first.input, other.input) AS opening
FROM unnest($2::bigint[]) AS t (tree)
JOIN chats AS c ON c.tree = t.tree AND c.tenant = $1 AND c.newest_thread IS NOT NULL
LEFT JOIN running AS u
    ON u.tree = c.tree AND u.thread = c.newest_thread AND u.seq = c.newest_seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()
LEFT JOIN waiting AS w ON w.tenant = c.tenant AND w.tree = c.tree
    AND w.thread = c.newest_thread AND w.seq = c.newest_seq
LEFT JOIN conversations AS v ON v.tenant = c.tenant AND v.id = c.conversation
LEFT JOIN responses AS a
    ON a.tenant = c.tenant AND a.id = v.active AND a.timestamp IS NOT NULL
LEFT JOIN running AS ua ON ua.tree = a.tree AND ua.thread = a.thread AND ua.seq = a.seq
LEFT JOIN LATERAL (
    SELECT l.ending FROM log AS l
    WHERE l.tree = a.tree AND l.thread = a.thread AND l.seq = a.seq ORDER BY l.part DESC LIMIT 1
) AS ending ON true
LEFT JOIN LATERAL (
    SELECT l.input FROM log AS l
    WHERE c.title IS NULL AND l.tree = c.tree AND l.thread = c.tree AND l.part = 0
    AND l.header IS NOT NULL
    ORDER BY l.seq LIMIT 1
) AS first ON true
LEFT JOIN LATERAL (
    SELECT l.input FROM log AS l
    WHERE c.title IS NULL AND first.input IS NULL AND l.tree = c.tree
    AND l.thread = c.newest_thread AND l.part = 0 AND l.header IS NOT NULL
    ORDER BY l.seq LIMIT 1
) AS other ON true

-- name: turns
-- What a list shows of turns: response, time, header, input and end.
SELECT l.tree, l.thread, l.seq, l.key, l.created_at, l.header, l.input, (
    SELECT e.ending FROM log AS e
    WHERE e.tree = l.tree AND e.thread = l.thread AND e.seq = l.seq ORDER BY e.part DESC LIMIT 1
) AS ending
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS t (tree, thread, seq)
JOIN log AS l ON l.tree = t.tree AND l.thread = t.thread AND l.seq = t.seq AND l.part = 0

-- name: threads
-- The threads of a tree that have turns: where each branches off, its first and its last turn.
SELECT t.id, t.parent_thread, t.parent_seq, first.seq AS first_seq, last.seq AS last_seq
FROM threads AS t
CROSS JOIN LATERAL (
    SELECT l.seq FROM log AS l
    WHERE l.tree = $1 AND l.thread = t.id AND l.part = 0 AND l.header IS NOT NULL
    ORDER BY l.seq LIMIT 1
) AS first
CROSS JOIN LATERAL (
    SELECT l.seq FROM log AS l
    WHERE l.tree = $1 AND l.thread = t.id AND l.part = 0 AND l.header IS NOT NULL
    ORDER BY l.seq DESC LIMIT 1
) AS last
WHERE t.tree = $1 ORDER BY t.id

-- name: running_in_tree
SELECT key FROM running WHERE tree = $1 AND tenant = $2

-- name: children
-- The turns of a tree that continue others, each with what it continues: in the same thread, and in
-- threads of their own.
SELECT p.thread AS parent_thread, p.seq AS parent_seq, l.thread, l.seq, l.created_at, l.key
FROM unnest($2::bigint[], $3::integer[]) AS p (thread, seq)
JOIN log AS l ON l.tree = $1 AND l.thread = p.thread AND l.seq = p.seq + 1 AND l.part = 0
WHERE l.header IS NOT NULL
UNION ALL
SELECT p.thread, p.seq, l.thread, l.seq, l.created_at, l.key
FROM unnest($2::bigint[], $3::integer[]) AS p (thread, seq)
JOIN threads AS t ON t.tree = $1 AND t.parent_thread = p.thread AND t.parent_seq = p.seq
JOIN log AS l ON l.tree = $1 AND l.thread = t.id AND l.seq = p.seq + 1 AND l.part = 0
WHERE l.header IS NOT NULL

-- name: first_turns
-- The turns that a tree began with.
SELECT l.thread, l.seq, l.created_at
FROM threads AS t
JOIN log AS l ON l.tree = $1 AND l.thread = t.id AND l.seq = 0 AND l.part = 0
WHERE t.tree = $1 AND t.parent_thread IS NULL AND l.header IS NOT NULL

-- name: branches_off
-- The threads that branch off a part of a thread.
SELECT id, parent_seq + 1 FROM threads
WHERE tree = $1 AND parent_thread = $2 AND parent_seq BETWEEN $3 AND $4

-- name: newest_descendant
-- The newest turn among one and its descendants.
WITH RECURSIVE span (thread, seq) AS (
    SELECT $2::bigint, $3::integer
    UNION ALL
    SELECT t.id, 0
    FROM span JOIN threads AS t
    ON t.tree = $1 AND t.parent_thread = span.thread AND t.parent_seq >= span.seq
)
SELECT l.key, l.seq
FROM span CROSS JOIN LATERAL (
    SELECT log.key, log.timestamp, log.thread, log.seq FROM log
    WHERE log.tree = $1 AND log.thread = span.thread AND log.seq >= span.seq AND log.part = 0
    AND log.header IS NOT NULL
    ORDER BY log.seq DESC LIMIT 1
) AS l
ORDER BY l.timestamp DESC, l.thread DESC, l.seq DESC LIMIT 1

-- name: response_at
SELECT key FROM log WHERE tree = $1 AND thread = $2 AND seq = $3 AND part = 0

-- name: image
SELECT data FROM blobs WHERE tenant = $1 AND hash = $2

-- name: waiting_turns
-- The turns of a tenant that wait for a person, the newest first.
SELECT w.tree, w.thread, w.seq
FROM waiting AS w
JOIN log AS l ON l.tree = w.tree AND l.thread = w.thread AND l.seq = w.seq AND l.part = 0
WHERE w.tenant = $1 AND l.header IS NOT NULL
ORDER BY l.timestamp DESC, w.thread DESC, w.seq DESC

-- name: contents
SELECT
    (SELECT count(*) FROM (
        SELECT 1 FROM chats WHERE tenant = $1 AND newest_thread IS NOT NULL LIMIT $2
    ) AS counted),
    (SELECT count(*) FROM (
        SELECT 1 FROM conversations WHERE tenant = $1 LIMIT $2
    ) AS counted),
    (SELECT count(*) FROM (
        SELECT 1 FROM responses WHERE tenant = $1 AND timestamp IS NOT NULL LIMIT $2
    ) AS counted),
    pg_database_size(current_database())

-- name: usage_sums
SELECT day, model, key_id, sum(turns)::bigint, sum(input_tokens)::bigint,
    sum(cached_tokens)::bigint, sum(output_tokens)::bigint, sum(cost)
FROM usage_sums WHERE tenant = $1 AND day BETWEEN $2 AND $3
GROUP BY day, model, key_id ORDER BY day, model, key_id

-- name: lock
SELECT tree FROM chats WHERE tree = $1 FOR UPDATE

-- name: set_title
UPDATE chats SET title = $2, is_title_generated = false WHERE tree = $1

-- name: set_generated_title
-- Only where there is none, and nothing was erased since the words that it is made of were read.
UPDATE chats SET title = $2, is_title_generated = true
WHERE tree = $1 AND tenant = $3 AND epoch = $4 AND title IS NULL AND newest_thread IS NOT NULL
RETURNING tree

-- name: set_pinned
UPDATE chats SET is_pinned = $2 WHERE tree = $1

-- name: expiry_timestamp
-- What its expiry counts from, or would.
SELECT greatest(updated_at, imported_at) FROM chats WHERE tree = $1

-- name: set_permanent
UPDATE chats SET
    is_permanent = $2, check_at = CASE WHEN $2 THEN 'Infinity'::float8 ELSE '-Infinity' END
WHERE tree = $1

-- name: set_metadata
UPDATE chats SET metadata = $2 WHERE tree = $1

-- name: times
SELECT created_at, updated_at FROM chats WHERE tree = $1 AND newest_thread IS NOT NULL

-- name: set_imported
UPDATE chats SET created_at = $2, updated_at = $3, imported_at = $4 WHERE tree = $1

-- name: set_conversation
UPDATE chats SET conversation = $2 WHERE tree = $1

-- name: key
SELECT key FROM chats WHERE tree = $1

-- name: conversation
SELECT conversation FROM chats WHERE tree = $1
