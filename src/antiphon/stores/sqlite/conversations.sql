-- name: create
INSERT INTO conversations (id, tenant, created_at, metadata) VALUES (?, ?, ?, ?)

-- name: one
SELECT id, created_at, head, busy, metadata FROM conversations WHERE id = ? AND tenant = ?

-- name: begin
UPDATE conversations SET head = ?, busy = ? WHERE id = ?

-- name: describe
UPDATE conversations SET metadata = ? WHERE id = ?

-- name: drop
DELETE FROM conversations WHERE id = ?

-- name: made
SELECT created_at FROM conversations WHERE id = ? AND tenant = ?

-- name: forwards
SELECT id, created_at, head, busy, metadata FROM conversations
WHERE tenant = ? AND (created_at, id) > (?, ?) ORDER BY created_at, id

-- name: backwards
SELECT id, created_at, head, busy, metadata FROM conversations
WHERE tenant = ? AND (created_at, id) < (?, ?) ORDER BY created_at DESC, id DESC

-- name: next_tenant
SELECT tenant FROM conversations WHERE tenant >= ? ORDER BY tenant LIMIT 1

-- name: made_before
SELECT id FROM conversations WHERE tenant = ? AND created_at <= ? ORDER BY created_at, id

-- name: next_made
-- The first time behind another at which a conversation of a tenant was made.
SELECT min(created_at) FROM conversations WHERE tenant = ? AND created_at > ?

-- name: state
-- Where a response lies, its stamp, who runs it, and its end.
SELECT r.place, r.tenant, r.created_at, u.owner, l.body
FROM responses AS r
LEFT JOIN running AS u ON u.place = r.place
LEFT JOIN log AS l ON l.place = r.place | 32767
WHERE r.id = ?

-- name: members
-- The turns of a conversation.
SELECT place FROM responses WHERE conversation = ? ORDER BY place

-- name: others
-- The turns between two places that are of no or another conversation, and not erased.
SELECT r.place, r.created_at
FROM log CROSS JOIN responses AS r ON r.id = substr(log.body, 1, 16)
WHERE log.place BETWEEN ? AND ? AND log.kind = 0 AND r.conversation IS NOT ?
ORDER BY r.place DESC

-- name: parent
SELECT parent FROM threads WHERE id = ?
