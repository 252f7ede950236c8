-- name: add
INSERT OR IGNORE INTO keys (id, digest, tenant, created_at, name, revoked_at)
VALUES (?, ?, ?, ?, ?, ?)

-- name: find
SELECT id, tenant, created_at, name, revoked_at FROM keys
WHERE digest = ? AND revoked_at IS NULL

-- name: all
SELECT id, tenant, created_at, name, revoked_at FROM keys ORDER BY created_at, id

-- name: revoke
UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?

-- name: any
SELECT EXISTS (SELECT 1 FROM keys)
