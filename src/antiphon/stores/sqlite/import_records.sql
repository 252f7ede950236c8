-- name: put
INSERT OR REPLACE INTO imports (id, tenant, owner, stored_at, body) VALUES (?, ?, ?, ?, ?)

-- name: delete_old
DELETE FROM imports WHERE stored_at <= ?

-- name: get
SELECT owner, body FROM imports WHERE id = ? AND tenant = ? AND stored_at > ?

-- name: list_records
SELECT owner, body FROM imports WHERE tenant = ? AND stored_at > ? ORDER BY stored_at DESC LIMIT ?
