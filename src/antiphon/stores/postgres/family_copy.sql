-- name: numbers
SELECT tree FROM chats WHERE tree > $1 ORDER BY tree LIMIT $2

-- name: chats
SELECT
    tree, tenant, epoch, key, created_at, updated_at, newest_thread, newest_seq, imported_at,
    conversation, is_pinned, is_permanent, title, is_title_generated, metadata, input_tokens,
    cached_tokens, output_tokens, cost
FROM chats WHERE tree = ANY($1::bigint[])

-- name: threads
SELECT tree, id, parent_thread, parent_seq FROM threads WHERE tree = ANY($1::bigint[])
ORDER BY tree, id

-- name: log
SELECT
    tree, thread, seq, part, key, created_at, timestamp, header, images, input, output, ending
FROM log WHERE tree = ANY($1::bigint[]) ORDER BY tree, thread, seq, part

-- name: waiting
SELECT w.tree, w.thread, w.seq
FROM chats AS c JOIN waiting AS w ON w.tenant = c.tenant AND w.tree = c.tree
WHERE c.tree = ANY($1::bigint[])

-- name: fingerprints
SELECT tree, thread, seq, fingerprint FROM chain_fingerprints WHERE tree = ANY($1::bigint[])

-- name: imports
SELECT tree, thread, seq, digest, is_of_words FROM imported_turns WHERE tree = ANY($1::bigint[])

-- name: families_of
SELECT w.number, r.tree
FROM unnest($1::text[], $2::bytea[]) WITH ORDINALITY AS w (tenant, key, number)
JOIN responses AS r ON r.tenant = w.tenant AND r.id = w.key

-- name: known_blobs
SELECT hash FROM blobs WHERE tenant = $1 AND hash = ANY($2::bytea[])

-- name: add_blobs
INSERT INTO blobs (tenant, hash, data) SELECT * FROM unnest($1::text[], $2::bytea[], $3::bytea[])
ON CONFLICT (tenant, hash) DO NOTHING

-- name: add_blob_uses
INSERT INTO blob_uses (tenant, hash, tree, thread, seq)
SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::integer[])

-- name: add_waiting
INSERT INTO waiting (tenant, tree, thread, seq)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[])

-- name: add_fingerprints
INSERT INTO chain_fingerprints (tenant, fingerprint, tree, thread, seq, key)
SELECT * FROM unnest(
    $1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::integer[], $6::bytea[]
)

-- name: add_imports
INSERT INTO imported_turns (tenant, digest, tree, thread, seq, is_of_words)
SELECT * FROM unnest(
    $1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::integer[], $6::boolean[]
)

-- name: add_pending
INSERT INTO search_pending (tenant, tree, thread, seq)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::integer[])

-- name: add_chat
INSERT INTO chats (
    tree, epoch, key, tenant, created_at, updated_at, newest_thread, newest_seq, imported_at,
    branches, conversation, is_pinned, is_permanent, title, is_title_generated, metadata,
    input_tokens, cached_tokens, output_tokens, cost, check_at
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
    CASE WHEN $7::bigint IS NOT NULL THEN '-Infinity'::float8 END
)

-- name: responses_of
SELECT c.tenant, l.key, l.thread, l.seq
FROM chats AS c JOIN log AS l ON l.tree = c.tree AND l.part = 0 WHERE c.tree = $1

-- name: delete_responses
DELETE FROM responses WHERE tenant = $1 AND id = ANY($2::bytea[])

-- name: delete_uses
DELETE FROM blob_uses WHERE tenant = $1 AND tree = $2 RETURNING hash

-- name: delete_unused_blobs
DELETE FROM blobs AS b WHERE b.tenant = $1 AND b.hash = ANY($2::bytea[])
AND NOT EXISTS (SELECT 1 FROM blob_uses AS u WHERE u.tenant = b.tenant AND u.hash = b.hash)

-- name: delete_waiting
DELETE FROM waiting WHERE tenant = $1 AND tree = $2

-- name: count
SELECT count(*) FROM chats WHERE newest_thread IS NOT NULL

-- name: position
SELECT position FROM copy_marks WHERE source = $1

-- name: mark
INSERT INTO copy_marks (source, position) VALUES ($1, -1)

-- name: move
UPDATE copy_marks SET position = $1

-- name: is_copy
SELECT EXISTS (SELECT 1 FROM copy_marks)

-- name: unmark
DELETE FROM copy_marks

-- name: is_used
SELECT EXISTS (SELECT 1 FROM responses) OR EXISTS (SELECT 1 FROM conversations)
    OR EXISTS (SELECT 1 FROM api_keys) OR EXISTS (SELECT 1 FROM copy_marks)

-- name: read_api_keys
SELECT id, sha256, tenant, created_at, name, revoked_at FROM api_keys
WHERE id > $1 ORDER BY id LIMIT $2

-- name: write_api_keys
INSERT INTO api_keys (id, sha256, tenant, created_at, name, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: delete_api_keys
DELETE FROM api_keys WHERE id = $1

-- name: read_shares
SELECT id, sha256, tenant, response_id, created_at, expires_at FROM shares
WHERE id > $1 ORDER BY id LIMIT $2

-- name: write_shares
INSERT INTO shares (id, sha256, tenant, response_id, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6)

-- name: delete_shares
DELETE FROM shares WHERE id = $1

-- name: read_conversations
SELECT tenant, created_at, id, head, active, metadata FROM conversations
WHERE (tenant, created_at, id) > ($1, $2, $3) ORDER BY tenant, created_at, id LIMIT $4

-- name: write_conversations
INSERT INTO conversations (tenant, created_at, id, head, active, metadata, check_at)
VALUES ($1, $2, $3, $4, $5, $6, $2)

-- name: delete_conversations
DELETE FROM conversations WHERE tenant = $1 AND created_at = $2 AND id = $3

-- name: read_idempotency_records
SELECT tenant, sha256, fingerprint, created_at, result_id FROM idempotency_records
WHERE (tenant, sha256) > ($1, $2) ORDER BY tenant, sha256 LIMIT $3

-- name: write_idempotency_records
INSERT INTO idempotency_records (tenant, sha256, fingerprint, created_at, result_id)
VALUES ($1, $2, $3, $4, $5)

-- name: delete_idempotency_records
DELETE FROM idempotency_records WHERE tenant = $1 AND sha256 = $2

-- name: read_usage_sums
SELECT tenant, day, model, key_id, sum(turns)::bigint, sum(input_tokens)::bigint,
    sum(cached_tokens)::bigint, sum(output_tokens)::bigint, sum(cost)
FROM usage_sums WHERE (tenant, day, model, key_id) > ($1, $2, $3, $4)
GROUP BY tenant, day, model, key_id ORDER BY tenant, day, model, key_id LIMIT $5

-- name: write_usage_sums
INSERT INTO usage_sums
    (tenant, day, model, key_id, slot, turns, input_tokens, cached_tokens, output_tokens, cost)
VALUES ($1, $2, $3, $4, 0, $5, $6, $7, $8, $9)

-- name: delete_usage_sums
DELETE FROM usage_sums WHERE tenant = $1 AND day = $2 AND model = $3 AND key_id = $4
