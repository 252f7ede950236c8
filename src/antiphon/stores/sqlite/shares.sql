-- name: add
INSERT INTO shares (id, sha256, tenant, response_id, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?)

-- name: delete_expired
DELETE FROM shares WHERE expires_at <= ?

-- name: find
SELECT id, tenant, response_id, created_at, expires_at FROM shares
WHERE sha256 = ? AND (expires_at IS NULL OR expires_at > ?)

-- name: position
SELECT created_at, id FROM shares WHERE id = ? AND tenant = ? AND (expires_at IS NULL OR expires_at > ?)

-- name: forwards
SELECT id, tenant, response_id, created_at, expires_at FROM shares
WHERE tenant = ? AND (created_at, id) > (?, ?) AND (expires_at IS NULL OR expires_at > ?)
ORDER BY created_at, id LIMIT ?

-- name: backwards
SELECT id, tenant, response_id, created_at, expires_at FROM shares
WHERE tenant = ? AND (created_at, id) < (?, ?) AND (expires_at IS NULL OR expires_at > ?)
ORDER BY created_at DESC, id DESC LIMIT ?

-- name: revoke
DELETE FROM shares WHERE id = ? AND tenant = ? AND (expires_at IS NULL OR expires_at > ?)
