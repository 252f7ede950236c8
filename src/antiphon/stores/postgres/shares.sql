-- name: add
INSERT INTO shares (id, sha256, tenant, response_id, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: delete_expired
DELETE FROM shares WHERE expires_at <= $1

-- name: find
SELECT id, tenant, response_id, created_at, expires_at FROM shares
WHERE sha256 = $1 AND (expires_at IS NULL OR expires_at > $2)

-- name: position
SELECT created_at, id FROM shares
WHERE id = $1 AND tenant = $2 AND (expires_at IS NULL OR expires_at > $3)

-- name: forwards
SELECT id, tenant, response_id, created_at, expires_at FROM shares
WHERE tenant = $1 AND (created_at, id) > ($2, $3) AND (expires_at IS NULL OR expires_at > $4)
ORDER BY created_at, id LIMIT $5

-- name: backwards
SELECT id, tenant, response_id, created_at, expires_at FROM shares
WHERE tenant = $1 AND (created_at, id) < ($2, $3) AND (expires_at IS NULL OR expires_at > $4)
ORDER BY created_at DESC, id DESC LIMIT $5

-- name: revoke
DELETE FROM shares
WHERE id = $1 AND tenant = $2 AND (expires_at IS NULL OR expires_at > $3) RETURNING id
