-- name: add
INSERT OR IGNORE INTO api_keys (id, sha256, tenant, created_at, name, revoked_at)
VALUES (?, ?, ?, ?, ?, ?)

-- name: find
SELECT id, tenant, created_at, name, revoked_at FROM api_keys
WHERE sha256 = ? AND revoked_at IS NULL

-- name: list
SELECT id, tenant, created_at, name, revoked_at FROM api_keys
WHERE :tenant IS NULL OR tenant = :tenant ORDER BY created_at, id

-- name: revoke
UPDATE api_keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?

-- name: any
SELECT EXISTS (SELECT 1 FROM api_keys)
