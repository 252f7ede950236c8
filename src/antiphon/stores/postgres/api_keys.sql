-- name: add
INSERT INTO api_keys (sha256, id, tenant, created_at, name, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING RETURNING 1

-- name: find
SELECT id, tenant, created_at, name, revoked_at FROM api_keys
WHERE sha256 = $1 AND revoked_at IS NULL

-- name: list
SELECT id, tenant, created_at, name, revoked_at FROM api_keys
WHERE $1::text IS NULL OR tenant = $1 ORDER BY created_at, id

-- name: revoke
UPDATE api_keys SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1 RETURNING 1

-- name: any
SELECT EXISTS (SELECT 1 FROM api_keys)
