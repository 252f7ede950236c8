-- name: sweep
DELETE FROM receipts WHERE created_at <= ?1

-- name: forget
DELETE FROM receipts WHERE tenant = ?1 AND digest = ?2 AND outcome IS NULL AND created_at <= ?3

-- name: claim
INSERT OR IGNORE INTO receipts (tenant, digest, fingerprint, created_at) VALUES (?1, ?2, ?3, ?4)

-- name: read
SELECT fingerprint, created_at, outcome FROM receipts WHERE tenant = ?1 AND digest = ?2

-- name: claimed
SELECT 1 FROM receipts
WHERE tenant = ?1 AND digest = ?2 AND fingerprint = ?3 AND outcome IS NULL

-- name: settle
UPDATE receipts SET outcome = ?3 WHERE tenant = ?1 AND digest = ?2

-- name: drop
DELETE FROM receipts WHERE tenant = ?1 AND digest = ?2 AND outcome IS NULL
