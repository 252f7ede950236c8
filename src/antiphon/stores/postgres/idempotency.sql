-- name: reserve
-- A row: it is reserved. A record that is abandoned ($5) or too old ($6) is taken over.
INSERT INTO idempotency_records AS r (tenant, sha256, fingerprint, created_at)
VALUES ($1, $2, $3, $4)
ON CONFLICT (tenant, sha256) DO UPDATE
SET fingerprint = excluded.fingerprint, created_at = excluded.created_at, result_id = NULL
WHERE r.created_at <= $6 OR (r.result_id IS NULL AND r.created_at <= $5)
RETURNING 1

-- name: read
SELECT fingerprint, created_at, result_id FROM idempotency_records
WHERE tenant = $1 AND sha256 = $2

-- name: hold_reserved
SELECT 1 FROM idempotency_records
WHERE tenant = $1 AND sha256 = $2 AND fingerprint = $3 AND result_id IS NULL FOR UPDATE

-- name: complete
UPDATE idempotency_records SET result_id = $3 WHERE tenant = $1 AND sha256 = $2

-- name: release
DELETE FROM idempotency_records WHERE tenant = $1 AND sha256 = $2 AND result_id IS NULL

-- name: delete_old
DELETE FROM idempotency_records WHERE created_at <= $1
