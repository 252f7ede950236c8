-- name: add
INSERT INTO chats (
    tree, key, tenant, created_at, updated_at, newest, branches, conversation,
    input_tokens, cached_tokens, output_tokens, cost
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: add_turns
-- The newest turn is the one with the greatest timestamp and row id.
UPDATE chats SET
    newest = CASE WHEN (updated_at, newest) < (?, ?) THEN ? ELSE newest END,
    updated_at = max(updated_at, ?),
    branches = branches + ?,
    input_tokens = input_tokens + ?,
    cached_tokens = cached_tokens + ?,
    output_tokens = output_tokens + ?,
    cost = CASE WHEN ? IS NULL THEN cost ELSE coalesce(cost, 0) + ? END
WHERE tree = ?

-- name: add_branches
UPDATE chats SET branches = branches + ? WHERE tree = ?

-- name: has_turns
SELECT 1 FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0 LIMIT 1

-- name: state
-- What there is to settle after an erasure: kind is 0 while its newest turn is there.
SELECT c.title, c.metadata, c.is_title_generated, l.kind, c.key, c.tenant
FROM chats AS c LEFT JOIN log AS l ON l.row_id = c.newest WHERE c.tree = ?

-- name: newest_of
-- The newest turn of a tree: of each thread the last turn that is not erased may be it.
SELECT r.created_at, r.row_id
FROM (
    SELECT :tree AS id
    UNION ALL
    SELECT id FROM threads WHERE tree = :tree AND id <> tree
) AS t
JOIN responses AS r ON r.id = substr((
    SELECT log.key FROM log
    WHERE log.row_id BETWEEN t.id << 34 AND t.id << 34 | 17179869183 AND log.kind = 0
    ORDER BY log.row_id DESC LIMIT 1
), 1, 16)
ORDER BY r.created_at DESC, r.row_id DESC LIMIT 1

-- name: set_newest
-- An imported turn's timestamp is later than what it says of itself.
UPDATE chats SET updated_at = min(updated_at, ?), newest = ? WHERE tree = ?

-- name: times
SELECT created_at, updated_at FROM chats WHERE tree = ?

-- name: set_imported
UPDATE chats SET created_at = ?, updated_at = ?, imported_at = ? WHERE tree = ?

-- name: set_conversation
UPDATE chats SET conversation = ? WHERE tree = ?

-- name: key
SELECT key FROM chats WHERE tree = ?

-- name: drop_title
UPDATE chats SET title = NULL, is_title_generated = 0 WHERE tree = ?

-- name: delete
DELETE FROM chats WHERE tree = ?

-- name: set_title
UPDATE chats SET title = ?, is_title_generated = ? WHERE tree = ?

-- name: set_pinned
UPDATE chats SET is_pinned = ? WHERE tree = ?

-- name: expiry_timestamp
-- What its expiry counts from, or would.
SELECT max(updated_at, coalesce(imported_at, updated_at)) FROM chats WHERE tree = ?

-- name: set_permanent
UPDATE chats SET is_permanent = ? WHERE tree = ?

-- name: set_metadata
UPDATE chats SET metadata = ? WHERE tree = ?

-- name: texts
SELECT title, metadata FROM chats WHERE tree = ?

-- name: tree_of_chat
-- And the timestamp that its expiry counts from; infinity: it is permanent.
SELECT
    tree, updated_at,
    CASE WHEN is_permanent THEN 9e999 ELSE max(updated_at, coalesce(imported_at, updated_at)) END
FROM chats WHERE key = ? AND tenant = ?

-- name: tree_of_response
SELECT
    c.tree, c.updated_at,
    CASE
        WHEN c.is_permanent THEN 9e999 ELSE max(c.updated_at, coalesce(c.imported_at, c.updated_at))
    END
FROM responses AS r
JOIN threads AS t ON t.id = r.row_id >> 34
JOIN chats AS c ON c.tree = t.tree
WHERE r.id = ? AND r.tenant = ?

-- name: backwards
SELECT tree FROM chats
WHERE tenant = ? AND (updated_at, tree) < (?, ?) ORDER BY updated_at DESC, tree DESC

-- name: forwards
SELECT tree FROM chats
WHERE tenant = ? AND (updated_at, tree) > (?, ?) ORDER BY updated_at, tree

-- name: pinned_trees
SELECT tree, updated_at FROM chats WHERE tenant = ? AND is_pinned

-- name: running_trees
-- The chats of a tenant whose newest turn has no end, in the order of running turns.
SELECT c.tree, c.updated_at
FROM running AS u
CROSS JOIN threads AS t ON t.id = u.row_id >> 34
CROSS JOIN chats AS c ON c.tree = t.tree AND c.newest = u.row_id
WHERE c.tenant = ?

-- name: waiting_trees
SELECT c.tree, c.updated_at
FROM waiting AS w
CROSS JOIN threads AS t ON t.id = w.row_id >> 34
CROSS JOIN chats AS c ON c.tree = t.tree AND c.newest = w.row_id
WHERE c.tenant = ?

-- name: chat
SELECT
    c.key, c.created_at, c.updated_at, c.newest, c.branches, c.conversation, c.is_pinned,
    c.is_permanent,
    title.body, metadata.body, c.input_tokens, c.cached_tokens, c.output_tokens, c.cost,
    u.owner, w.row_id,
    CASE
        WHEN c.is_permanent THEN 9e999 ELSE max(c.updated_at, coalesce(c.imported_at, c.updated_at))
    END
FROM chats AS c
LEFT JOIN texts AS title ON title.id = c.title
LEFT JOIN texts AS metadata ON metadata.id = c.metadata
LEFT JOIN running AS u ON u.row_id = c.newest
LEFT JOIN waiting AS w ON w.row_id = c.newest
WHERE c.tree = ?

-- name: first_items
SELECT texts.body FROM log JOIN texts ON texts.id = log.text
WHERE log.row_id BETWEEN ? AND ? AND log.kind = 1 ORDER BY log.row_id LIMIT ?

-- name: first_turn
-- The first turn between two row ids that is not erased.
SELECT row_id FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0 ORDER BY row_id LIMIT 1

-- name: conversation
SELECT conversation FROM chats WHERE tree = ?

-- name: roots
-- The threads that a tree began with: its first, and those that begin beside it.
SELECT id FROM threads WHERE id = :tree
UNION ALL
SELECT id FROM threads WHERE tree = :tree AND id <> tree AND parent IS NULL

-- name: running_in_tree
-- The response ids of running turns of a tree.
SELECT substr(log.key, 1, 16)
FROM running AS u
CROSS JOIN threads AS t ON t.id = u.row_id >> 34
CROSS JOIN log ON log.row_id = u.row_id
WHERE t.tree = ? AND log.kind = 0

-- name: add_waiting
INSERT OR IGNORE INTO waiting (row_id) VALUES (?)

-- name: has_waiting
SELECT 1 FROM waiting LIMIT 1

-- name: remove_waiting
DELETE FROM waiting WHERE row_id = ?

-- name: remove_waiting_in
DELETE FROM waiting WHERE row_id BETWEEN ? AND ?

-- name: children
-- The turns that continue the one at :row_id: one a turn (32768 row ids) later, the others in
-- threads of their own.
SELECT log.row_id, log.key FROM log
WHERE log.row_id = :row_id + 32768 AND log.row_id >> 34 = :row_id >> 34 AND log.kind = 0
UNION ALL
SELECT log.row_id, log.key
FROM threads AS t
CROSS JOIN log ON log.row_id = (t.id << 34 | (:row_id & 17179869183) + 32768)
WHERE t.parent = :row_id AND log.kind = 0

-- name: first_turns
-- The turns that a tree began with.
SELECT log.row_id, log.key FROM log WHERE log.row_id = :tree << 34 AND log.kind = 0
UNION ALL
SELECT log.row_id, log.key
FROM threads AS t
CROSS JOIN log ON log.row_id = t.id << 34
WHERE t.tree = :tree AND t.id <> t.tree AND t.parent IS NULL AND log.kind = 0

-- name: newest_descendant
-- The newest turn among the one at :row_id and its descendants.
WITH RECURSIVE span (first, last) AS (
    SELECT :row_id, :row_id | 17179869183
    UNION ALL
    SELECT threads.id << 34, threads.id << 34 | 17179869183
    FROM span CROSS JOIN threads ON threads.parent BETWEEN span.first AND span.last
)
SELECT r.row_id
FROM span
CROSS JOIN responses AS r ON r.id = substr((
    SELECT log.key FROM log
    WHERE log.row_id BETWEEN span.first AND span.last AND log.kind = 0
    ORDER BY log.row_id DESC LIMIT 1
), 1, 16)
ORDER BY r.created_at DESC, r.row_id DESC LIMIT 1

-- name: previous_living
-- The last turn between two row ids that is not erased.
SELECT row_id, key FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0
ORDER BY row_id DESC LIMIT 1

-- name: threads
SELECT id FROM threads WHERE id = :tree
UNION ALL
SELECT id FROM threads WHERE tree = :tree AND id <> tree

-- name: image
SELECT data FROM blobs WHERE tenant = ? AND hash = ?

-- name: waiting_turns
-- The turns of a tenant that wait for a person: time, row id and tree.
SELECT r.created_at, w.row_id, t.tree
FROM waiting AS w
CROSS JOIN threads AS t ON t.id = w.row_id >> 34
CROSS JOIN log ON log.row_id = w.row_id
CROSS JOIN responses AS r ON r.id = substr(log.key, 1, 16)
WHERE t.tenant = ? AND log.kind = 0

-- name: contents
SELECT
    (SELECT count(*) FROM (SELECT 1 FROM chats WHERE tenant = :tenant LIMIT :limit)),
    (SELECT count(*) FROM (SELECT 1 FROM conversations WHERE tenant = :tenant LIMIT :limit)),
    (SELECT count(*) FROM (SELECT 1 FROM responses WHERE tenant = :tenant LIMIT :limit)),
    (SELECT page_count * page_size FROM pragma_page_count, pragma_page_size)

-- name: add_usage_sums
INSERT INTO usage_sums
    (tenant, day, model, key_id, turns, input_tokens, cached_tokens, output_tokens, cost)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (tenant, day, model, key_id) DO UPDATE SET
    turns = turns + excluded.turns,
    input_tokens = input_tokens + excluded.input_tokens,
    cached_tokens = cached_tokens + excluded.cached_tokens,
    output_tokens = output_tokens + excluded.output_tokens,
    cost = CASE WHEN excluded.cost IS NULL THEN cost ELSE coalesce(cost, 0) + excluded.cost END

-- name: usage_sums
SELECT day, model, key_id, turns, input_tokens, cached_tokens, output_tokens, cost
FROM usage_sums WHERE tenant = ? AND day BETWEEN ? AND ? ORDER BY day, model, key_id
