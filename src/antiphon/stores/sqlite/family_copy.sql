-- name: families
-- The first thread of a family may be gone, and others that began beside it be there.
SELECT id AS number FROM threads WHERE id = tree AND id > :after
UNION
SELECT tree FROM threads WHERE id <> tree AND tree > :after
ORDER BY number LIMIT :limit

-- name: threads
SELECT id, tenant, parent FROM threads WHERE id = :tree
UNION ALL
SELECT id, tenant, parent FROM threads WHERE tree = :tree AND id <> tree
ORDER BY id

-- name: marks
-- What the side tables have of the turns between two row ids, erased or not.
SELECT
    log.row_id, r.created_at, w.row_id IS NOT NULL, f.fingerprint, i.digest, i.is_of_words
FROM log
JOIN responses AS r ON r.id = substr(log.key, 1, 16)
LEFT JOIN waiting AS w ON w.row_id = log.row_id
LEFT JOIN chain_fingerprints AS f ON f.row_id = log.row_id
LEFT JOIN imported_turns AS i ON i.row_id = log.row_id
WHERE log.row_id BETWEEN ? AND ? AND log.kind IN (0, 4)

-- name: chat
SELECT
    c.key, c.created_at, c.updated_at, c.newest, c.input_tokens, c.cached_tokens, c.output_tokens,
    c.imported_at, c.conversation, c.is_pinned, c.is_permanent, title.body, c.is_title_generated,
    metadata.body, c.cost
FROM chats AS c
LEFT JOIN texts AS title ON title.id = c.title
LEFT JOIN texts AS metadata ON metadata.id = c.metadata
WHERE c.tree = ?

-- name: epoch
SELECT epoch FROM epochs WHERE tree = ?

-- name: add_epoch
INSERT INTO epochs (tree, epoch) VALUES (?, ?)

-- name: delete_epoch
DELETE FROM epochs WHERE tree = ?

-- name: family_of
SELECT t.tree FROM responses AS r JOIN threads AS t ON t.id = r.row_id >> 34
WHERE r.id = ? AND t.tenant = ?

-- name: blob
SELECT data FROM blobs WHERE tenant = ? AND hash = ?

-- name: add_waiting
INSERT INTO waiting (row_id) VALUES (?)

-- name: add_fingerprint
INSERT INTO chain_fingerprints (row_id, fingerprint) VALUES (?, ?)

-- name: add_import
INSERT INTO imported_turns (tenant, digest, row_id, is_of_words) VALUES (?, ?, ?, ?)

-- name: add_chat
INSERT INTO chats (
    tree, key, tenant, created_at, updated_at, newest, branches, input_tokens, cached_tokens,
    output_tokens, imported_at, conversation, is_pinned, is_permanent, title, is_title_generated,
    metadata, cost
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: delete_chat
DELETE FROM chats WHERE tree = ?

-- name: chat_texts
SELECT title FROM chats WHERE tree = :tree AND title IS NOT NULL
UNION ALL
SELECT metadata FROM chats WHERE tree = :tree AND metadata IS NOT NULL

-- name: delete_thread
-- But not the last: its number must not be given again to another.
DELETE FROM threads WHERE id = :thread AND id < (SELECT max(id) FROM threads)

-- name: count
SELECT count(*) FROM chats

-- name: position
SELECT position FROM copy_marks WHERE source = ?

-- name: mark
INSERT INTO copy_marks (source, position) VALUES (?, -1)

-- name: move
UPDATE copy_marks SET position = ?

-- name: is_copy
SELECT 1 FROM copy_marks

-- name: unmark
DELETE FROM copy_marks

-- name: is_used
SELECT coalesce(
    (SELECT min(id) FROM responses), (SELECT min(id) FROM conversations),
    (SELECT min(id) FROM api_keys), (SELECT min(source) FROM copy_marks)
) IS NOT NULL

-- name: read_api_keys
SELECT id, sha256, tenant, created_at, name, revoked_at FROM api_keys
WHERE id > ? ORDER BY id LIMIT ?

-- name: write_api_keys
INSERT OR REPLACE INTO api_keys (id, sha256, tenant, created_at, name, revoked_at)
VALUES (?, ?, ?, ?, ?, ?)

-- name: delete_api_keys
DELETE FROM api_keys WHERE id = ?

-- name: read_shares
SELECT id, sha256, tenant, response_id, created_at, expires_at FROM shares
WHERE id > ? ORDER BY id LIMIT ?

-- name: write_shares
INSERT OR REPLACE INTO shares (id, sha256, tenant, response_id, created_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?)

-- name: delete_shares
DELETE FROM shares WHERE id = ?

-- name: read_conversations
SELECT c.tenant, c.created_at, c.id, c.head, c.active, texts.body
FROM conversations AS c JOIN texts ON texts.id = c.metadata
WHERE (c.tenant, c.created_at, c.id) > (?, ?, ?)
ORDER BY c.tenant, c.created_at, c.id LIMIT ?

-- name: write_conversations
-- Its metadata is the id of a text.
INSERT INTO conversations (tenant, created_at, id, head, active, metadata)
VALUES (?, ?, ?, ?, ?, ?)

-- name: read_idempotency_records
SELECT tenant, sha256, fingerprint, created_at, result_id FROM idempotency_records
WHERE (tenant, sha256) > (?, ?) ORDER BY tenant, sha256 LIMIT ?

-- name: write_idempotency_records
INSERT OR REPLACE INTO idempotency_records (tenant, sha256, fingerprint, created_at, result_id)
VALUES (?, ?, ?, ?, ?)

-- name: delete_idempotency_records
DELETE FROM idempotency_records WHERE tenant = ? AND sha256 = ?

-- name: read_usage_sums
SELECT tenant, day, model, key_id, turns, input_tokens, cached_tokens, output_tokens, cost
FROM usage_sums WHERE (tenant, day, model, key_id) > (?, ?, ?, ?)
ORDER BY tenant, day, model, key_id LIMIT ?

-- name: write_usage_sums
INSERT OR REPLACE INTO usage_sums
    (tenant, day, model, key_id, turns, input_tokens, cached_tokens, output_tokens, cost)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: delete_usage_sums
DELETE FROM usage_sums WHERE tenant = ? AND day = ? AND model = ? AND key_id = ?
