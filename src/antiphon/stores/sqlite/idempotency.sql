-- name: sweep
DELETE FROM receipts WHERE created_at <= ?

-- name: forget
DELETE FROM receipts WHERE tenant = ? AND digest = ? AND outcome IS NULL AND created_at <= ?

-- name: claim
INSERT OR IGNORE INTO receipts (tenant, digest, fingerprint, created_at) VALUES (?, ?, ?, ?)

-- name: read
SELECT fingerprint, created_at, outcome FROM receipts WHERE tenant = ? AND digest = ?

-- name: claimed
SELECT 1 FROM receipts
WHERE tenant = ? AND digest = ? AND fingerprint = ? AND outcome IS NULL

-- name: settle
UPDATE receipts SET outcome = ? WHERE tenant = ? AND digest = ?

-- name: drop
DELETE FROM receipts WHERE tenant = ? AND digest = ? AND outcome IS NULL
