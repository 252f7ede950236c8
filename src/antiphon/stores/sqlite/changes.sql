-- name: add
INSERT INTO changes (mark, body) VALUES (random() & 4294967295, ?)

-- name: trim
DELETE FROM changes WHERE id <= ?

-- name: bounds
SELECT (SELECT min(id) FROM changes), id, mark FROM changes ORDER BY id DESC LIMIT 1

-- name: read
SELECT id, mark, body FROM changes WHERE id > ? ORDER BY id LIMIT ?

-- name: chat_key
SELECT key FROM chats WHERE tree = ?
