-- name: by_digest
SELECT row_id FROM imported_turns WHERE tenant = ? AND digest = ?

-- name: by_response
-- Also where it was erased: its thread still says whose it was.
SELECT r.row_id FROM responses AS r JOIN threads AS t ON t.id = r.row_id >> 34
WHERE r.id = ? AND t.tenant = ?

-- name: turn
-- A turn or its tombstone: kind, key, tree, epoch, timestamp.
SELECT log.kind, log.key, t.tree, coalesce(e.epoch, 0), r.created_at
FROM log
JOIN threads AS t ON t.id = log.row_id >> 34
JOIN responses AS r ON r.id = substr(log.key, 1, 16)
LEFT JOIN epochs AS e ON e.tree = t.tree
WHERE log.row_id = ? AND t.tenant = ?

-- name: remember
INSERT OR REPLACE INTO imported_turns (tenant, digest, row_id, is_of_words) VALUES (?, ?, ?, ?)

-- name: threads
-- The threads of a tree, each behind the one that it branches off.
SELECT id, parent FROM threads WHERE id = :tree
UNION ALL
SELECT id, parent FROM threads WHERE tree = :tree AND id <> tree
ORDER BY id

-- name: headers
-- The turns of a thread, erased ones too.
SELECT row_id, kind, key FROM log WHERE row_id BETWEEN ? AND ? AND kind IN (0, 4) ORDER BY row_id
