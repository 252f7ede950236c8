-- name: get
SELECT c.id, c.created_at, c.head, c.active, c.metadata,
    a.tree AS active_tree, a.thread AS active_thread, a.seq AS active_seq,
    a.timestamp AS active_timestamp, u.node, n.id AS living, l.ending,
    h.tree AS head_tree, h.thread AS head_thread, h.seq AS head_seq,
    h.timestamp AS head_timestamp
FROM conversations AS c
LEFT JOIN responses AS a ON a.tenant = c.tenant AND a.id = c.active
LEFT JOIN running AS u ON u.tree = a.tree AND u.thread = a.thread AND u.seq = a.seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()
LEFT JOIN log AS l
    ON l.tree = a.tree AND l.thread = a.thread AND l.seq = a.seq AND l.ending IS NOT NULL
LEFT JOIN responses AS h ON h.tenant = c.tenant AND h.id = c.head
WHERE c.tenant = $1 AND c.id = $2

-- name: hold
SELECT 1 FROM conversations WHERE tenant = $1 AND id = $2 FOR UPDATE

-- name: created_at
SELECT created_at FROM conversations WHERE tenant = $1 AND id = $2

-- name: forwards
SELECT c.id, c.created_at, c.head, c.active, c.metadata,
    a.tree AS active_tree, a.thread AS active_thread, a.seq AS active_seq,
    a.timestamp AS active_timestamp, u.node, n.id AS living, l.ending,
    h.tree AS head_tree, h.thread AS head_thread, h.seq AS head_seq,
    h.timestamp AS head_timestamp
FROM (
    SELECT * FROM conversations
    WHERE tenant = $1 AND (created_at, id) > ($2, $3) ORDER BY created_at, id LIMIT $4
) AS c
LEFT JOIN responses AS a ON a.tenant = c.tenant AND a.id = c.active
LEFT JOIN running AS u ON u.tree = a.tree AND u.thread = a.thread AND u.seq = a.seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()
LEFT JOIN log AS l
    ON l.tree = a.tree AND l.thread = a.thread AND l.seq = a.seq AND l.ending IS NOT NULL
LEFT JOIN responses AS h ON h.tenant = c.tenant AND h.id = c.head
ORDER BY c.created_at, c.id

-- name: backwards
SELECT c.id, c.created_at, c.head, c.active, c.metadata,
    a.tree AS active_tree, a.thread AS active_thread, a.seq AS active_seq,
    a.timestamp AS active_timestamp, u.node, n.id AS living, l.ending,
    h.tree AS head_tree, h.thread AS head_thread, h.seq AS head_seq,
    h.timestamp AS head_timestamp
FROM (
    SELECT * FROM conversations
    WHERE tenant = $1 AND (created_at, id) < ($2, $3) ORDER BY created_at DESC, id DESC LIMIT $4
) AS c
LEFT JOIN responses AS a ON a.tenant = c.tenant AND a.id = c.active
LEFT JOIN running AS u ON u.tree = a.tree AND u.thread = a.thread AND u.seq = a.seq
LEFT JOIN nodes AS n ON n.id = u.node AND n.lease_until > now()
LEFT JOIN log AS l
    ON l.tree = a.tree AND l.thread = a.thread AND l.seq = a.seq AND l.ending IS NOT NULL
LEFT JOIN responses AS h ON h.tenant = c.tenant AND h.id = c.head
ORDER BY c.created_at DESC, c.id DESC

-- name: nearest_living
-- The last turn of the chain that ends at ($1, $2, $3) of the tenant $4 that is not erased.
WITH RECURSIVE part (thread, seq, parent_thread, parent_seq, depth) AS (
    SELECT t.id, $3::integer, t.parent_thread, t.parent_seq, 0
    FROM threads AS t WHERE t.tree = $1 AND t.id = $2 AND t.tenant = $4
    UNION ALL
    SELECT t.id, part.parent_seq, t.parent_thread, t.parent_seq, part.depth + 1
    FROM part JOIN threads AS t ON t.tree = $1 AND t.id = part.parent_thread
)
SELECT l.thread, l.seq, l.key, l.timestamp
FROM part CROSS JOIN LATERAL (
    SELECT * FROM log
    WHERE log.tree = $1 AND log.thread = part.thread AND log.seq <= part.seq AND log.part = 0
    AND log.header IS NOT NULL
    ORDER BY log.seq DESC LIMIT 1
) AS l
ORDER BY part.depth LIMIT 1

-- name: update_metadata
UPDATE conversations SET metadata = $3 WHERE tenant = $1 AND id = $2

-- name: delete
DELETE FROM conversations WHERE tenant = $1 AND id = $2

-- name: turns
-- The turns of a conversation that are not erased.
SELECT tree, thread, seq, id FROM responses
WHERE tenant = $1 AND conversation = $2 AND timestamp IS NOT NULL ORDER BY tree, thread, seq

-- name: latest
-- The later one of the timestamps of a conversation's head and active turn; infinity: one of them is
-- in a permanent chat.
SELECT max(CASE WHEN chat.is_permanent THEN 'Infinity'::float8 ELSE r.timestamp END)
FROM conversations AS c
JOIN responses AS r ON r.tenant = c.tenant AND r.id IN (c.head, c.active)
JOIN chats AS chat ON chat.tree = r.tree
WHERE c.tenant = $1 AND c.id = $2
