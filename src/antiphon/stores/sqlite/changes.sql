-- name: add
INSERT INTO changes (mark, body, deferred) VALUES (random() & 4294967295, ?, ?)

-- name: deferred
-- Of the newest rows, which are all that may have any.
SELECT cast(deferred AS BLOB) FROM changes
WHERE id > (SELECT max(id) FROM changes) - ? AND deferred IS NOT NULL ORDER BY id

-- name: has_deferred
SELECT 1 FROM changes
WHERE id > (SELECT max(id) FROM changes) - ? AND deferred IS NOT NULL LIMIT 1

-- name: clear_deferred
UPDATE changes SET deferred = NULL
WHERE id > (SELECT max(id) FROM changes) - ? AND deferred IS NOT NULL

-- name: trim
DELETE FROM changes WHERE id <= ?

-- name: bounds
SELECT (SELECT min(id) FROM changes), id, mark FROM changes ORDER BY id DESC LIMIT 1

-- name: read
SELECT id, mark, body FROM changes WHERE id > ? ORDER BY id LIMIT ?

-- name: chat_key
SELECT key FROM chats WHERE tree = ?
