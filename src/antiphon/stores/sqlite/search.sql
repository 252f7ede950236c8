-- name: count_pending
SELECT count(*) FROM (SELECT 1 FROM search_pending LIMIT ?)

-- name: count_pending_of
-- Of one tenant, up to a limit.
SELECT count(*) FROM (
    SELECT 1 FROM search_pending AS w JOIN threads AS t ON t.id = w.row_id >> 34
    WHERE t.tenant = ? LIMIT ?
)

-- name: pending_turns
-- Turns that wait to be indexed, of a tenant or (NULL) of all, each with its time; no time: it
-- has not ended, or was erased.
SELECT w.row_id, w.revision, t.tenant, CASE WHEN e.kind = 3 THEN substr(h.key, 17, 8) END
FROM search_pending AS w
LEFT JOIN threads AS t ON t.id = w.row_id >> 34
LEFT JOIN log AS h ON h.row_id = w.row_id AND h.kind = 0
LEFT JOIN log AS e ON e.row_id = w.row_id + 32767
WHERE :tenant IS NULL OR t.tenant = :tenant
ORDER BY w.row_id LIMIT :limit

-- name: newest_segments
SELECT id, turns, secret FROM search_segments WHERE tenant = ? ORDER BY id DESC LIMIT ?

-- name: turn_entries
SELECT turn_entries FROM search_segments WHERE id = ?

-- name: items
SELECT texts.body FROM log JOIN texts ON texts.id = log.text
WHERE log.row_id BETWEEN :row_id AND :row_id + 32767 AND log.kind IN (1, 2) ORDER BY log.row_id

-- name: header
SELECT log.key, texts.body FROM log JOIN texts ON texts.id = log.text
WHERE log.row_id = ? AND log.kind = 0

-- name: is_pending
SELECT 1 FROM search_pending WHERE row_id = ? AND revision = ?

-- name: segment_exists
SELECT 1 FROM search_segments WHERE id = ? AND secret = ?

-- name: delete_segment
DELETE FROM search_segments WHERE id = ?

-- name: add_segment
INSERT INTO search_segments (tenant, turns, words, secret, bucket_count, turn_entries)
VALUES (?, ?, ?, ?, ?, ?)

-- name: add_bucket
INSERT INTO search_buckets (segment, number, body) VALUES (?, ?, ?)

-- name: add_segment_turn
INSERT INTO search_segment_turns (segment, row_id) VALUES (?, ?)

-- name: delete_pending
DELETE FROM search_pending WHERE row_id = ?

-- name: segments
SELECT id, turns, words, secret, bucket_count FROM search_segments WHERE tenant = ? ORDER BY id

-- name: bucket
SELECT body FROM search_buckets WHERE segment = ? AND number = ?
