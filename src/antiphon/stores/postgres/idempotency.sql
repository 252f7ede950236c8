-- name: reserve
-- A row: it is reserved. A record that is too old ($7) is taken over, and one without a result that
-- is abandoned ($6) or of a dead process.
INSERT INTO idempotency_records AS r (tenant, sha256, fingerprint, created_at, node)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant, sha256) DO UPDATE SET
    fingerprint = excluded.fingerprint,
    created_at = excluded.created_at,
    node = excluded.node,
    result_id = NULL
WHERE r.created_at <= $7 OR (r.result_id IS NULL AND (
    r.created_at <= $6
    OR NOT EXISTS (SELECT 1 FROM nodes AS n WHERE n.id = r.node AND n.lease_until > now())
))
RETURNING 1

-- name: read
SELECT fingerprint, created_at, result_id FROM idempotency_records
WHERE tenant = $1 AND sha256 = $2

-- name: hold_reserved
SELECT 1 FROM idempotency_records
WHERE tenant = $1 AND sha256 = $2 AND fingerprint = $3 AND node = $4 AND result_id IS NULL
FOR UPDATE

-- name: complete
UPDATE idempotency_records SET result_id = $3 WHERE tenant = $1 AND sha256 = $2

-- name: release
DELETE FROM idempotency_records
WHERE tenant = $1 AND sha256 = $2 AND node = $3 AND result_id IS NULL

-- name: delete_old
DELETE FROM idempotency_records WHERE created_at <= $1
