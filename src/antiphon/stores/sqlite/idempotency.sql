-- name: delete_old
DELETE FROM idempotency_records WHERE created_at <= ?

-- name: delete_abandoned
DELETE FROM idempotency_records WHERE tenant = ? AND sha256 = ? AND result_id IS NULL AND created_at <= ?

-- name: reserve
INSERT OR IGNORE INTO idempotency_records (tenant, sha256, fingerprint, created_at, owner)
VALUES (?, ?, ?, ?, ?)

-- name: read
SELECT fingerprint, created_at, result_id, owner FROM idempotency_records WHERE tenant = ? AND sha256 = ?

-- name: take_over
UPDATE idempotency_records SET fingerprint = ?, created_at = ?, owner = ?
WHERE tenant = ? AND sha256 = ?

-- name: is_reserved
SELECT 1 FROM idempotency_records
WHERE tenant = ? AND sha256 = ? AND fingerprint = ? AND owner = ? AND result_id IS NULL

-- name: complete
UPDATE idempotency_records SET result_id = ? WHERE tenant = ? AND sha256 = ?

-- name: release
DELETE FROM idempotency_records
WHERE tenant = ? AND sha256 = ? AND owner = ? AND result_id IS NULL
