-- name: roots
SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'

-- name: log_rows
-- The rows between two, and about how long each is; first those that are changed most easily.
-- That of a use is in an index, and that of an item in the search.
SELECT place, length(body) + 8 FROM log
WHERE place BETWEEN ? AND ? ORDER BY kind IN (1, 2, 5), length(body)

-- name: log_body
SELECT body FROM log WHERE place = ?

-- name: log_change
UPDATE log SET body = ? WHERE place = ?

-- name: blobs_rows
SELECT id, length(data) + length(CAST(tenant AS BLOB)) + 44 FROM blobs
WHERE id BETWEEN ? AND ? ORDER BY length(data)

-- name: blobs_body
SELECT data FROM blobs WHERE id = ?

-- name: blobs_change
UPDATE blobs SET data = ? WHERE id = ?

-- name: conversations_rows
SELECT rowid, length(metadata) + length(CAST(tenant AS BLOB)) + 68 FROM conversations
WHERE rowid BETWEEN ? AND ? ORDER BY length(metadata)

-- name: conversations_body
SELECT metadata FROM conversations WHERE rowid = ?

-- name: conversations_change
UPDATE conversations SET metadata = ? WHERE rowid = ?
