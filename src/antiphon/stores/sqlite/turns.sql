-- name: head
SELECT r.row_id, t.tree, coalesce(e.epoch, 0), u.owner, r.created_at
FROM responses AS r
JOIN threads AS t ON t.id = r.row_id >> 34
LEFT JOIN epochs AS e ON e.tree = t.tree
LEFT JOIN running AS u ON u.row_id = r.row_id
WHERE r.id = ? AND r.tenant = ?

-- name: row_id
SELECT row_id FROM responses WHERE id = ? AND tenant = ?

-- name: latest_timestamp
-- The latest stamp of the turn at :row_id and its descendants: of each thread the last turn that is
-- not erased has it. Infinity: their chat is permanent. NULL: all are erased.
WITH RECURSIVE span (first, last) AS (
    SELECT :row_id, :row_id | 17179869183
    UNION ALL
    SELECT threads.id << 34, threads.id << 34 | 17179869183
    FROM span CROSS JOIN threads ON threads.parent BETWEEN span.first AND span.last
)
SELECT CASE WHEN latest IS NOT NULL AND (
    SELECT c.is_permanent FROM threads AS t JOIN chats AS c ON c.tree = t.tree
    WHERE t.id = :row_id >> 34
) THEN 9e999 ELSE latest END
FROM (
    SELECT max((
        SELECT r.created_at
        FROM log CROSS JOIN responses AS r ON r.id = substr(log.key, 1, 16)
        WHERE log.row_id BETWEEN span.first AND span.last AND log.kind = 0
        ORDER BY log.row_id DESC LIMIT 1
    )) AS latest
    FROM span
)

-- name: has_unexpired
-- Whether a turn or a descendant has a stamp behind the cutoff: ends at the first that does. In a
-- permanent chat every one has.
WITH RECURSIVE span (first, last) AS (
    SELECT :row_id, :row_id | 17179869183
    UNION ALL
    SELECT threads.id << 34, threads.id << 34 | 17179869183
    FROM span CROSS JOIN threads ON threads.parent BETWEEN span.first AND span.last
)
SELECT 1 FROM span
WHERE (
    SELECT r.created_at
    FROM log CROSS JOIN responses AS r ON r.id = substr(log.key, 1, 16)
    WHERE log.row_id BETWEEN span.first AND span.last AND log.kind = 0
    ORDER BY log.row_id DESC LIMIT 1
) > CASE WHEN (
    SELECT c.is_permanent FROM threads AS t JOIN chats AS c ON c.tree = t.tree
    WHERE t.id = :row_id >> 34
) THEN -9e999 ELSE :cutoff END
LIMIT 1

-- name: response_exists
SELECT 1 FROM responses WHERE id = ?

-- name: rows
SELECT log.row_id, log.kind, log.key, texts.body FROM log LEFT JOIN texts ON texts.id = log.text
WHERE log.row_id BETWEEN ? AND ? ORDER BY log.row_id

-- name: history_rows
-- The same without the texts of headers, and of texts only those that are not too long.
SELECT log.row_id, log.kind, log.key,
    CASE WHEN length(texts.body) <= :longest THEN texts.body END
FROM log LEFT JOIN texts ON texts.id = log.text AND log.kind <> 0
WHERE log.row_id BETWEEN :first AND :last ORDER BY log.row_id LIMIT :limit

-- name: previous_turn
-- The header or tombstone of the turn before the one at :place: one turn (32768 places)
-- earlier in its thread, or where that branched off.
SELECT row_id, kind, key FROM log WHERE row_id = coalesce(
    (SELECT row_id FROM log WHERE row_id = :row_id - 32768 AND row_id >> 34 = :row_id >> 34),
    (SELECT parent FROM threads WHERE id = :row_id >> 34)
)

-- name: thread_ends
-- The last place of each part of the chain that ends at :place: one part a thread, oldest first.
WITH RECURSIVE part (row_id, parent, depth) AS (
    SELECT :row_id, parent, 0 FROM threads WHERE id = :row_id >> 34 AND tenant = :tenant
    UNION ALL
    SELECT part.parent, threads.parent, part.depth + 1
    FROM part JOIN threads ON threads.id = part.parent >> 34
)
SELECT row_id FROM part ORDER BY depth DESC

-- name: headers_forwards
-- The first so many turns between two places that are not erased.
SELECT row_id FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0 ORDER BY row_id LIMIT ?

-- name: headers_backwards
-- The last so many of them, the last first.
SELECT row_id FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0 ORDER BY row_id DESC LIMIT ?

-- name: owner
SELECT owner FROM running WHERE row_id = ?

-- name: runner
SELECT u.owner FROM responses AS r JOIN running AS u ON u.row_id = r.row_id WHERE r.id = ?

-- name: owners
SELECT DISTINCT owner FROM running

-- name: newest_id
SELECT max(id) FROM responses

-- name: last_thread
SELECT coalesce(max(id), 0) FROM threads

-- name: turn_exists
-- Whether a turn is there, erased or not.
SELECT 1 FROM log WHERE row_id = ?

-- name: has_epoch
SELECT coalesce((SELECT epoch FROM epochs WHERE tree = ?), 0) = ?

-- name: is_unchanged
-- Whether there is a turn at the first place, if the one at the second is the same, and its tree
-- has the epoch still.
SELECT EXISTS (SELECT 1 FROM log WHERE row_id = ?) FROM log
WHERE row_id = ? AND substr(key, 1, 16) = ?
AND coalesce((SELECT epoch FROM epochs WHERE tree = ?), 0) = ?


-- name: add_thread
INSERT INTO threads (id, tenant, tree, parent) VALUES (?, ?, ?, ?)

-- name: add_response
INSERT INTO responses (id, tenant, row_id, created_at, conversation)
VALUES (?, ?, ?, ?, ?)

-- name: add_text
-- Behind all others; with an id of NULL, right behind them.
INSERT INTO texts (id, body) VALUES (?, ?)

-- name: add_row
INSERT INTO log (row_id, kind, key, text) VALUES (?, ?, ?, ?)

-- name: blob_id
SELECT id FROM blobs WHERE tenant = ? AND hash = ?

-- name: add_blob
INSERT INTO blobs (tenant, hash, data) VALUES (?, ?, ?)

-- name: add_probe
-- Nobody's image, of so many bytes: its hash is shorter than any.
INSERT INTO blobs (tenant, hash, data) VALUES ('', x'00', zeroblob(?))

-- name: delete_probe
DELETE FROM blobs WHERE tenant = '' AND hash = x'00'

-- name: blob
SELECT hash, data FROM blobs WHERE id = ?

-- name: blob_hash
SELECT hash FROM blobs WHERE id = ?

-- name: add_running
INSERT INTO running (row_id, owner) VALUES (?, ?)

-- name: add_pending
INSERT OR REPLACE INTO search_pending (row_id, revision) VALUES (?, ?)

-- name: end_running
DELETE FROM running WHERE row_id = ? AND owner = ?

-- name: tree_of
SELECT tree FROM threads WHERE id = ?

-- name: branches
SELECT id FROM threads WHERE parent BETWEEN ? AND ?

-- name: tombstone_responses
UPDATE responses SET tenant = NULL, created_at = 0, conversation = NULL WHERE id IN (
    SELECT substr(key, 1, 16) FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0
)

-- name: delete_running
DELETE FROM running WHERE row_id BETWEEN ? AND ?

-- name: delete_items
DELETE FROM log WHERE row_id BETWEEN ? AND ? AND kind IN (1, 2, 3, 5)

-- name: delete_responses
DELETE FROM responses WHERE id IN (
    SELECT substr(key, 1, 16) FROM log WHERE row_id BETWEEN ? AND ? AND kind IN (0, 4)
)

-- name: delete_rows
DELETE FROM log WHERE row_id BETWEEN ? AND ?

-- name: delete_thread
-- An empty one, but not the last: its number must not be given again to another.
DELETE FROM threads
WHERE id = :thread AND id < (SELECT max(id) FROM threads)
AND NOT EXISTS (SELECT 1 FROM log WHERE row_id BETWEEN :thread << 34 AND :thread << 34 | 17179869183)

-- name: delete_epoch
-- Of a tree whose first thread is gone, and all that began beside it.
DELETE FROM epochs
WHERE tree = :tree AND NOT EXISTS (SELECT 1 FROM threads WHERE id = :tree)
AND NOT EXISTS (SELECT 1 FROM chats WHERE tree = :tree)

-- name: last_turn
-- The last turn, erased or not, between two places.
SELECT row_id FROM log
WHERE row_id BETWEEN ? AND ? AND kind IN (0, 4) ORDER BY row_id DESC LIMIT 1

-- name: next_tenant
SELECT tenant FROM responses WHERE tenant >= ? ORDER BY tenant LIMIT 1

-- name: last_timestamp
-- Of a thread's last turn that is not erased.
SELECT r.created_at
FROM log CROSS JOIN responses AS r ON r.id = substr(log.key, 1, 16)
WHERE log.row_id BETWEEN :thread << 34 AND :thread << 34 | 17179869183 AND log.kind = 0
ORDER BY log.row_id DESC LIMIT 1

-- name: running_in
SELECT 1 FROM running WHERE row_id BETWEEN ? AND ? LIMIT 1

-- name: turns_in
SELECT count(*) FROM log WHERE row_id BETWEEN ? AND ? AND kind = 0

-- name: older_turns
-- A tenant's turns of stamps up to one, behind the one of another stamp and place.
SELECT created_at, row_id FROM responses
WHERE tenant = ? AND created_at <= ? AND (created_at, row_id) > (?, ?)
ORDER BY created_at, row_id LIMIT ?

-- name: next_timestamp
-- The first of a tenant's stamps behind a time.
SELECT min(created_at) FROM responses WHERE tenant = ? AND created_at > ?

-- name: sort_key
SELECT created_at, row_id FROM responses WHERE id = ? AND tenant = ?

-- name: forwards
SELECT created_at, row_id FROM responses
WHERE tenant = ? AND (created_at, row_id) > (?, ?) ORDER BY created_at, row_id

-- name: backwards
SELECT created_at, row_id FROM responses
WHERE tenant = ? AND (created_at, row_id) < (?, ?) ORDER BY created_at DESC, row_id DESC

-- name: row
SELECT log.key, texts.body FROM log LEFT JOIN texts ON texts.id = log.text WHERE log.row_id = ?

-- name: text_of
SELECT text FROM log WHERE row_id = ?

-- name: replace_text
UPDATE log SET text = ? WHERE row_id = ?

-- name: texts_in
SELECT text FROM log WHERE row_id BETWEEN ? AND ? AND text IS NOT NULL

-- name: delete_text
DELETE FROM texts WHERE id = ?

-- name: summaries
-- Outputs between two places that begin as :start does.
SELECT log.row_id, texts.body FROM log JOIN texts ON texts.id = log.text
WHERE log.row_id BETWEEN :first AND :last AND log.kind = 2
AND substr(texts.body, 1, length(:start)) = :start

-- name: add_fingerprint
-- Of a turn that has ended (32767 is the place of the end), unless something was erased from its
-- family since the epoch.
INSERT INTO chain_fingerprints (row_id, fingerprint)
SELECT r.row_id, :fingerprint
FROM responses AS r
JOIN log AS ending ON ending.row_id = (r.row_id | 32767)
JOIN threads AS t ON t.id = r.row_id >> 34
LEFT JOIN epochs AS e ON e.tree = t.tree
WHERE r.id = :key AND r.tenant IS NOT NULL AND coalesce(e.epoch, 0) = :epoch

-- name: with_fingerprint
-- The ids of turns, the newest first.
SELECT substr(log.key, 1, 16) FROM chain_fingerprints AS f JOIN log ON log.row_id = f.row_id
WHERE f.fingerprint = ? ORDER BY f.row_id DESC

-- name: delete_fingerprints
DELETE FROM chain_fingerprints WHERE row_id BETWEEN ? AND ?

-- name: delete_imports
DELETE FROM imported_turns WHERE row_id BETWEEN ? AND ?

-- name: delete_import_words
DELETE FROM imported_turns WHERE row_id BETWEEN ? AND ? AND is_of_words

-- name: delete_row
DELETE FROM log WHERE row_id = ?

-- name: blob_uses
SELECT key FROM log WHERE row_id BETWEEN ? AND ? AND kind = 5

-- name: delete_unused_blob
-- A blob, whose uses are rows with the key that comes second.
DELETE FROM blobs
WHERE id = ? AND NOT EXISTS (SELECT 1 FROM log WHERE kind = 5 AND key = ?)

-- name: tombstone_headers
-- Leaves tombstones: a turn's id and place, so that branches keep pointing right.
UPDATE log SET kind = 4, key = substr(key, 1, 16), text = NULL
WHERE row_id BETWEEN ? AND ? AND kind = 0

-- name: bump_epoch
INSERT INTO epochs (tree, epoch) VALUES (?, 1)
ON CONFLICT (tree) DO UPDATE SET epoch = epoch + 1

-- name: place
-- The id, tenant and tree of the turn at a row id that is not erased.
SELECT substr(log.key, 1, 16), t.tenant, t.tree
FROM log CROSS JOIN threads AS t ON t.id = log.row_id >> 34
WHERE log.row_id = ? AND log.kind = 0
