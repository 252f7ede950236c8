-- name: roots
SELECT name, rootpage FROM sqlite_schema WHERE type = 'table'

-- name: log_rows
-- The rows between two, and about how long each is; first those that are changed most easily.
-- That of a use is in an index, and that of an item in the search.
SELECT row_id, length(body) + 8 FROM log
WHERE row_id BETWEEN ? AND ? ORDER BY kind IN (1, 2, 5), length(body)

-- name: log_body
SELECT body FROM log WHERE row_id = ?

-- name: log_update
UPDATE log SET body = ? WHERE row_id = ?

-- name: blobs_rows
SELECT id, length(data) + length(CAST(tenant AS BLOB)) + 44 FROM blobs
WHERE id BETWEEN ? AND ? ORDER BY length(data)

-- name: blobs_body
SELECT data FROM blobs WHERE id = ?

-- name: blobs_update
UPDATE blobs SET data = ? WHERE id = ?

-- name: conversations_rows
SELECT rowid, length(metadata) + length(CAST(tenant AS BLOB)) + 68 FROM conversations
WHERE rowid BETWEEN ? AND ? ORDER BY length(metadata)

-- name: conversations_body
SELECT metadata FROM conversations WHERE rowid = ?

-- name: conversations_update
UPDATE conversations SET metadata = ? WHERE rowid = ?
