-- name: create
INSERT INTO conversations (id, tenant, created_at, metadata) VALUES (?, ?, ?, ?)

-- name: get
SELECT c.id, c.created_at, c.head, c.active, texts.body
FROM conversations AS c JOIN texts ON texts.id = c.metadata WHERE c.id = ? AND c.tenant = ?

-- name: move_head
UPDATE conversations SET head = ?, active = ? WHERE id = ?

-- name: metadata
SELECT metadata FROM conversations WHERE id = ?

-- name: update_metadata
UPDATE conversations SET metadata = ? WHERE id = ?

-- name: delete
DELETE FROM conversations WHERE id = ?

-- name: created_at
SELECT created_at FROM conversations WHERE id = ? AND tenant = ?

-- name: forwards
SELECT c.id, c.created_at, c.head, c.active, texts.body
FROM conversations AS c JOIN texts ON texts.id = c.metadata
WHERE c.tenant = ? AND (c.created_at, c.id) > (?, ?) ORDER BY c.created_at, c.id

-- name: backwards
SELECT c.id, c.created_at, c.head, c.active, texts.body
FROM conversations AS c JOIN texts ON texts.id = c.metadata
WHERE c.tenant = ? AND (c.created_at, c.id) < (?, ?) ORDER BY c.created_at DESC, c.id DESC

-- name: next_tenant
SELECT tenant FROM conversations WHERE tenant >= ? ORDER BY tenant LIMIT 1

-- name: created_before
SELECT id FROM conversations WHERE tenant = ? AND created_at <= ? ORDER BY created_at, id

-- name: next_created
-- The first time behind another at which a conversation of a tenant was made.
SELECT min(created_at) FROM conversations WHERE tenant = ? AND created_at > ?

-- name: turn_state
-- Where a response lies, its stamp, who runs it, and its end.
SELECT r.row_id, r.tenant, r.created_at, u.owner, x.body
FROM responses AS r
LEFT JOIN running AS u ON u.row_id = r.row_id
LEFT JOIN log AS l ON l.row_id = r.row_id | 32767
LEFT JOIN texts AS x ON x.id = l.text
WHERE r.id = ?

-- name: turns
-- The turns of a conversation.
SELECT row_id, id FROM responses WHERE conversation = ? ORDER BY row_id

-- name: other_turns
-- The turns between two places that are of no or another conversation, and not erased.
SELECT r.row_id, r.created_at
FROM log CROSS JOIN responses AS r ON r.id = substr(log.key, 1, 16)
WHERE log.row_id BETWEEN ? AND ? AND log.kind = 0 AND r.conversation IS NOT ?
ORDER BY r.row_id DESC

-- name: parent
SELECT parent FROM threads WHERE id = ?
