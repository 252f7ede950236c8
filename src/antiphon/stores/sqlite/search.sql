-- name: has_pending
-- Whether more than so many turns are pending.
SELECT 1 FROM search_pending LIMIT 1 OFFSET ?

-- name: count_pending_of
-- Of one tenant, up to a limit.
SELECT count(*) FROM (
    SELECT 1 FROM search_pending AS w JOIN threads AS t ON t.id = w.row_id >> 34
    WHERE t.tenant = ? LIMIT ?
)

-- name: pending_turns
-- Turns that wait to be indexed, each with its tenant and time; no time: it was erased.
SELECT w.row_id, w.revision, t.tenant, substr(h.key, 17, 8)
FROM search_pending AS w
LEFT JOIN threads AS t ON t.id = w.row_id >> 34
LEFT JOIN log AS h ON h.row_id = w.row_id AND h.kind = 0
ORDER BY w.row_id LIMIT :limit

-- name: pending_turns_of
-- The same of one tenant, those that ended last first.
SELECT w.row_id, w.revision, t.tenant, substr(h.key, 17, 8)
FROM search_pending AS w
JOIN threads AS t ON t.id = w.row_id >> 34
LEFT JOIN log AS h ON h.row_id = w.row_id AND h.kind = 0
WHERE t.tenant = :tenant
ORDER BY w.revision DESC LIMIT :limit

-- name: pending_turns_in
-- The same of one chat.
SELECT w.row_id, w.revision, t.tenant, substr(h.key, 17, 8)
FROM (
    SELECT id, tenant FROM threads WHERE id = :tree
    UNION ALL
    SELECT id, tenant FROM threads WHERE tree = :tree AND id <> tree
) AS t
CROSS JOIN search_pending AS w ON w.row_id BETWEEN t.id << 34 AND t.id << 34 | 17179869183
LEFT JOIN log AS h ON h.row_id = w.row_id AND h.kind = 0
ORDER BY w.revision DESC LIMIT :limit

-- name: items_of
-- Of turns in the order of their row ids in an array, a row for each: its items, with a character
-- (30) between them that JSON never contains. A row for each item would be as many changes of
-- threads: the module sqlite3 lets go of the interpreter for each row.
SELECT (
    SELECT cast(group_concat(cast(texts.body AS TEXT), char(30)) AS BLOB)
    FROM log CROSS JOIN texts ON texts.id = log.text
    WHERE log.row_id BETWEEN turn.value AND turn.value + 32767 AND log.kind IN (1, 2)
)
FROM json_each(?) AS turn

-- name: items
SELECT texts.body FROM log JOIN texts ON texts.id = log.text
WHERE log.row_id BETWEEN :row_id AND :row_id + 32767 AND log.kind IN (1, 2) ORDER BY log.row_id

-- name: header
SELECT log.key, texts.body FROM log JOIN texts ON texts.id = log.text
WHERE log.row_id = ? AND log.kind = 0

-- name: pending_revisions
SELECT row_id, revision FROM search_pending WHERE row_id IN (SELECT value FROM json_each(?))

-- name: delete_pending
DELETE FROM search_pending WHERE row_id IN (SELECT value FROM json_each(?))

-- name: smallest_segments
-- Of those in no group.
SELECT s.id, s.turns, k.secret
FROM search_segments AS s JOIN search_secrets AS k ON k.id = s.id
WHERE s.tenant = ? AND s.group_id IS NULL ORDER BY s.turns LIMIT ?

-- name: count_single
SELECT count(*) FROM search_segments WHERE tenant = ? AND group_id IS NULL

-- name: largest_segments
-- Of those in no group.
SELECT s.id, s.turns, s.words, k.secret
FROM search_segments AS s JOIN search_secrets AS k ON k.id = s.id
WHERE s.tenant = ? AND s.group_id IS NULL ORDER BY s.turns DESC LIMIT ?

-- name: has_secret
SELECT 1 FROM search_secrets WHERE id = ? AND secret = ?

-- name: free_secret
SELECT id FROM search_secrets WHERE secret = x'00000000000000000000000000000000' LIMIT 1

-- name: add_secret
INSERT INTO search_secrets (secret) VALUES (?)

-- name: reuse_secret
UPDATE search_secrets SET secret = ? WHERE id = ?

-- name: delete_segment
DELETE FROM search_segments WHERE id = ?

-- name: add_segment
INSERT INTO search_segments (id, tenant, turns, words, bucket_count, row_ids, turn_entries)
VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: add_bucket
INSERT INTO search_buckets (id, body) VALUES (?, ?)

-- name: add_segment_turns
INSERT INTO search_segment_turns (segment, row_id) SELECT ?, value FROM json_each(?)

-- name: add_group
INSERT INTO search_groups (id, tenant, turns, words, bucket_count, segments)
VALUES (?, ?, ?, ?, ?, ?)

-- name: set_group
UPDATE search_segments SET group_id = ? WHERE id IN (SELECT value FROM json_each(?))

-- name: count_ungrouped
-- How many of these segments are in no group.
SELECT count(*) FROM search_segments
WHERE id IN (SELECT value FROM json_each(?)) AND group_id IS NULL

-- name: single_segments
SELECT s.id, s.turns, s.words, s.bucket_count, k.secret
FROM search_segments AS s JOIN search_secrets AS k ON k.id = s.id
WHERE s.tenant = ? AND s.group_id IS NULL

-- name: single_buckets
-- The buckets for the hash of a term in the segments that are in no group.
SELECT s.id, b.body
FROM search_segments AS s
CROSS JOIN search_buckets AS b ON b.id = (s.id << 16) | (:name & (s.bucket_count - 1))
WHERE s.tenant = :tenant AND s.group_id IS NULL

-- name: groups
SELECT g.id, g.turns, g.words, g.bucket_count, k.secret
FROM search_groups AS g JOIN search_secrets AS k ON k.id = g.id
WHERE g.tenant = ?

-- name: group_buckets
-- The same in the groups.
SELECT g.id, b.body
FROM search_groups AS g
CROSS JOIN search_buckets AS b ON b.id = (g.id << 16) | (:name & (g.bucket_count - 1))
WHERE g.tenant = :tenant

-- name: group_members
SELECT segments FROM search_groups WHERE id = ?

-- name: segment
SELECT s.bucket_count, k.secret
FROM search_segments AS s JOIN search_secrets AS k ON k.id = s.id
WHERE s.id = ?

-- name: turn_entries
SELECT row_ids, turn_entries FROM search_segments WHERE id = ?

-- name: bucket
SELECT body FROM search_buckets WHERE id = ?

-- name: buckets
SELECT id, body FROM search_buckets WHERE id BETWEEN ? << 16 AND ? << 16 | 65535

-- name: segments_in
-- The turns between two places that are in segments, with these.
SELECT row_id, segment FROM search_segment_turns WHERE row_id BETWEEN ? AND ?

-- name: segments_of_chat
-- The turns of a chat that are in segments, with these.
SELECT s.row_id, s.segment
FROM (
    SELECT id FROM threads WHERE id = :tree
    UNION ALL
    SELECT id FROM threads WHERE tree = :tree AND id <> tree
) AS t
CROSS JOIN search_segment_turns AS s
    ON s.row_id BETWEEN t.id << 34 AND t.id << 34 | 17179869183

-- name: add_pending
INSERT OR IGNORE INTO search_pending (row_id, revision) VALUES (?, random() & 1048575)

-- name: whole_segment
SELECT s.group_id, s.words, k.secret, s.row_ids, s.turn_entries
FROM search_segments AS s JOIN search_secrets AS k ON k.id = s.id
WHERE s.id = ?

-- name: whole_group
SELECT k.secret, g.segments
FROM search_groups AS g JOIN search_secrets AS k ON k.id = g.id
WHERE g.id = ?

-- name: shrink_segment
UPDATE search_segments SET turns = ?, words = ?, row_ids = ?, turn_entries = ? WHERE id = ?

-- name: shrink_group
UPDATE search_groups SET (turns, words) = (
    SELECT sum(turns), sum(words) FROM search_segments WHERE group_id = :id
)
WHERE id = :id

-- name: update_bucket
UPDATE search_buckets SET body = ? WHERE id = ?

-- name: delete_bucket
DELETE FROM search_buckets WHERE id = ?

-- name: delete_segment_turns
DELETE FROM search_segment_turns WHERE row_id IN (SELECT value FROM json_each(?))
