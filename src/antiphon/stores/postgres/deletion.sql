-- Ranges of turns are $1: the tree, $2, $3, $4: the threads, and the first and last depths.

-- name: descendants
-- A turn and its descendants: of each thread the first of them.
WITH RECURSIVE span (thread, seq) AS (
    SELECT $2::bigint, $3::integer
    UNION ALL
    SELECT t.id, 0
    FROM span JOIN threads AS t
    ON t.tree = $1 AND t.parent_thread = span.thread AND t.parent_seq >= span.seq
)
SELECT thread, seq FROM span

-- name: turns_in
-- Turns, erased ones too, and whether each is not.
SELECT l.thread, l.seq, l.key, l.header IS NOT NULL
FROM unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
JOIN log AS l
    ON l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last AND l.part = 0

-- name: delete_running
DELETE FROM running AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last

-- name: delete_waiting
DELETE FROM waiting AS l
USING unnest($3::bigint[], $4::integer[], $5::integer[]) AS w (thread, first, last)
WHERE l.tenant = $1 AND l.tree = $2 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last

-- name: delete_fingerprints
DELETE FROM chain_fingerprints AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last

-- name: delete_imports
DELETE FROM imported_turns AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last

-- name: delete_import_words
DELETE FROM imported_turns AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last AND l.is_of_words

-- name: erase_responses
UPDATE responses SET timestamp = NULL, conversation = NULL
WHERE tenant = $1 AND id = ANY($2::bytea[]) AND timestamp IS NOT NULL

-- name: delete_responses
DELETE FROM responses WHERE tenant = $1 AND id = ANY($2::bytea[])

-- name: delete_parts
DELETE FROM log AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last AND l.part > 0

-- name: erase_beginnings
-- Leaves tombstones: a turn's id and place, so that branches keep pointing right.
UPDATE log AS l SET
    created_at = NULL, timestamp = NULL, header = NULL, images = NULL, input = NULL, output = NULL,
    ending = NULL, has_summary = false
FROM unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last AND l.part = 0
AND l.header IS NOT NULL

-- name: delete_log
DELETE FROM log AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last

-- name: delete_blob_uses
DELETE FROM blob_uses AS l
USING unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
WHERE l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last
RETURNING l.hash

-- name: delete_uses_of
DELETE FROM blob_uses
WHERE tenant = $1 AND hash = ANY($2::bytea[]) AND tree = $3 AND thread = $4 AND seq = $5
RETURNING hash

-- name: hold_blobs
SELECT 1 FROM blobs WHERE tenant = $1 AND hash = ANY($2::bytea[]) ORDER BY hash FOR UPDATE

-- name: delete_unused_blobs
DELETE FROM blobs AS b
WHERE b.tenant = $1 AND b.hash = ANY($2::bytea[])
AND NOT EXISTS (SELECT 1 FROM blob_uses AS u WHERE u.tenant = b.tenant AND u.hash = b.hash)
RETURNING 1

-- name: summaries
SELECT l.thread, l.seq, l.part, l.output
FROM unnest($2::bigint[], $3::integer[], $4::integer[]) AS w (thread, first, last)
JOIN log AS l
    ON l.tree = $1 AND l.thread = w.thread AND l.seq BETWEEN w.first AND w.last AND l.has_summary

-- name: set_output
UPDATE log SET output = $5, has_summary = $6
WHERE tree = $1 AND thread = $2 AND seq = $3 AND part = $4

-- name: set_input
UPDATE log SET input = $5 WHERE tree = $1 AND thread = $2 AND seq = $3 AND part = $4

-- name: set_images
UPDATE log SET images = $4 WHERE tree = $1 AND thread = $2 AND seq = $3 AND part = 0

-- name: bump_epoch
UPDATE chats SET epoch = epoch + 1 WHERE tree = $1

-- name: runs
SELECT 1 FROM running WHERE tree = $1 AND thread = $2 AND seq = $3

-- name: items_of
SELECT part, input, output, images FROM log
WHERE tree = $1 AND thread = $2 AND seq = $3 ORDER BY part FOR UPDATE

-- name: threads
SELECT id, parent_thread, parent_seq FROM threads WHERE tree = $1

-- name: others_in_tree
-- The turns of a tree that are of no or another conversation, and not erased.
SELECT r.thread, r.seq, r.timestamp
FROM log AS l JOIN responses AS r ON r.tenant = $2 AND r.id = l.key
WHERE l.tree = $1 AND l.part = 0 AND l.header IS NOT NULL AND r.conversation IS DISTINCT FROM $3
ORDER BY r.thread, r.seq DESC

-- name: leaves
-- Of each thread of a tree the last turn that is not erased, and its timestamp; infinity: the chat is
-- permanent.
SELECT t.id, l.seq, CASE
    WHEN (SELECT is_permanent FROM chats WHERE tree = $1) THEN 'Infinity'::float8 ELSE l.timestamp
END
FROM threads AS t CROSS JOIN LATERAL (
    SELECT log.seq, log.timestamp FROM log
    WHERE log.tree = $1 AND log.thread = t.id AND log.part = 0 AND log.header IS NOT NULL
    ORDER BY log.seq DESC LIMIT 1
) AS l
WHERE t.tree = $1

-- name: running_in_tree
SELECT thread, seq FROM running WHERE tree = $1

-- name: first_living
-- The first turn of a thread behind a depth that is not erased.
SELECT min(seq) FROM log
WHERE tree = $1 AND thread = $2 AND seq > $3 AND part = 0 AND header IS NOT NULL

-- name: delete_empty_threads
DELETE FROM threads AS t
WHERE t.tree = $1
AND NOT EXISTS (SELECT 1 FROM log AS l WHERE l.tree = t.tree AND l.thread = t.id)

-- name: delete_empty_chat
DELETE FROM chats AS c
WHERE c.tree = $1 AND NOT EXISTS (SELECT 1 FROM log AS l WHERE l.tree = c.tree)

-- name: set_check
UPDATE chats SET check_at = $2 WHERE tree = $1

-- name: due_chats
-- Chats that may have something that has expired, of tenants without a lifetime of their own.
SELECT tree, tenant, key FROM chats
WHERE check_at <= $1 AND tenant <> ALL($2::text[]) ORDER BY check_at LIMIT $3

-- name: due_chats_of
SELECT tree, tenant, key FROM chats
WHERE tenant = $1 AND check_at <= $2 ORDER BY check_at LIMIT $3

-- name: due_conversations
SELECT tenant, id FROM conversations
WHERE check_at <= $1 AND tenant <> ALL($2::text[]) ORDER BY check_at LIMIT $3

-- name: due_conversations_of
SELECT tenant, id FROM conversations
WHERE tenant = $1 AND check_at <= $2 ORDER BY check_at LIMIT $3

-- name: set_conversation_check
UPDATE conversations SET check_at = $3 WHERE tenant = $1 AND id = $2

-- name: is_oldest_node
SELECT id = $1 FROM nodes WHERE lease_until > now() ORDER BY started_at, id LIMIT 1

-- name: newest_tree
-- The tree that was begun last.
SELECT max(tree) FROM chats
