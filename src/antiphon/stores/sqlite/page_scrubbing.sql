-- name: roots
SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'

-- name: texts_rows
-- The rows between two, and about how long each is, the shortest first.
SELECT id, length(body) + 8 FROM texts WHERE id BETWEEN ? AND ? ORDER BY length(body)

-- name: texts_body
SELECT body FROM texts WHERE id = ?

-- name: texts_update
UPDATE texts SET body = ? WHERE id = ?

-- name: blobs_rows
SELECT id, length(data) + length(CAST(tenant AS BLOB)) + 44 FROM blobs
WHERE id BETWEEN ? AND ? ORDER BY length(data)

-- name: blobs_body
SELECT data FROM blobs WHERE id = ?

-- name: blobs_update
UPDATE blobs SET data = ? WHERE id = ?
