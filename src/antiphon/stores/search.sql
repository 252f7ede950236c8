-- name: some_wait
SELECT count(*) FROM (SELECT 1 FROM search_waiting LIMIT ?1)

-- name: waiting
-- Turns that wait to be indexed, of tenant ?1 or (NULL) of all, each with its time; no time: it
-- has not ended, or was erased.
SELECT w.place, w.mark, t.tenant, CASE WHEN e.kind = 3 THEN substr(h.body, 17, 8) END
FROM search_waiting AS w
LEFT JOIN threads AS t ON t.id = w.place >> 34
LEFT JOIN log AS h ON h.place = w.place AND h.kind = 0
LEFT JOIN log AS e ON e.place = w.place + 32767
WHERE ?1 IS NULL OR t.tenant = ?1
ORDER BY w.place LIMIT ?2

-- name: newest_chunks
SELECT id, turns, secret FROM search_chunks WHERE tenant = ?1 ORDER BY id DESC LIMIT ?2

-- name: spots
SELECT spots FROM search_chunks WHERE id = ?1

-- name: items
SELECT body FROM log WHERE place BETWEEN ?1 AND ?1 + 32767 AND kind IN (1, 2) ORDER BY place

-- name: header
SELECT body FROM log WHERE place = ?1 AND kind = 0

-- name: still_waits
SELECT 1 FROM search_waiting WHERE place = ?1 AND mark = ?2

-- name: still_there
SELECT 1 FROM search_chunks WHERE id = ?1 AND secret = ?2

-- name: dissolve
DELETE FROM search_chunks WHERE id = ?1

-- name: add_chunk
INSERT INTO search_chunks (tenant, turns, words, secret, drawers, spots)
VALUES (?1, ?2, ?3, ?4, ?5, ?6)

-- name: add_drawer
INSERT INTO search_drawers (chunk, number, body) VALUES (?1, ?2, ?3)

-- name: add_place
INSERT INTO search_places (place, chunk) VALUES (?2, ?1)

-- name: served
DELETE FROM search_waiting WHERE place = ?1

-- name: chunks
SELECT id, turns, words, secret, drawers FROM search_chunks WHERE tenant = ?1 ORDER BY id

-- name: drawer
SELECT body FROM search_drawers WHERE chunk = ?1 AND number = ?2
