-- name: add
INSERT INTO changes (body) VALUES (?)

-- name: trim
DELETE FROM changes WHERE id <= ?

-- name: bounds
SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM changes

-- name: read
SELECT id, body FROM changes WHERE id > ? ORDER BY id LIMIT ?

-- name: chat_key
SELECT key FROM chats WHERE tree = ?
