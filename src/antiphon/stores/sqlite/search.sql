-- name: some_wait
SELECT count(*) FROM (SELECT 1 FROM search_waiting LIMIT ?)

-- name: waiting
-- Turns that wait to be indexed, of a tenant or (NULL) of all, each with its time; no time: it
-- has not ended, or was erased.
SELECT w.place, w.mark, t.tenant, CASE WHEN e.kind = 3 THEN substr(h.body, 17, 8) END
FROM search_waiting AS w
LEFT JOIN threads AS t ON t.id = w.place >> 34
LEFT JOIN log AS h ON h.place = w.place AND h.kind = 0
LEFT JOIN log AS e ON e.place = w.place + 32767
WHERE :tenant IS NULL OR t.tenant = :tenant
ORDER BY w.place LIMIT :limit

-- name: newest_chunks
SELECT id, turns, secret FROM search_chunks WHERE tenant = ? ORDER BY id DESC LIMIT ?

-- name: spots
SELECT spots FROM search_chunks WHERE id = ?

-- name: items
SELECT body FROM log WHERE place BETWEEN :place AND :place + 32767 AND kind IN (1, 2) ORDER BY place

-- name: header
SELECT body FROM log WHERE place = ? AND kind = 0

-- name: still_waits
SELECT 1 FROM search_waiting WHERE place = ? AND mark = ?

-- name: still_there
SELECT 1 FROM search_chunks WHERE id = ? AND secret = ?

-- name: dissolve
DELETE FROM search_chunks WHERE id = ?

-- name: add_chunk
INSERT INTO search_chunks (tenant, turns, words, secret, drawers, spots)
VALUES (?, ?, ?, ?, ?, ?)

-- name: add_drawer
INSERT INTO search_drawers (chunk, number, body) VALUES (?, ?, ?)

-- name: add_place
INSERT INTO search_places (chunk, place) VALUES (?, ?)

-- name: served
DELETE FROM search_waiting WHERE place = ?

-- name: chunks
SELECT id, turns, words, secret, drawers FROM search_chunks WHERE tenant = ? ORDER BY id

-- name: drawer
SELECT body FROM search_drawers WHERE chunk = ? AND number = ?
