-- name: join
INSERT INTO nodes (id, url, started_at, host, pid, version) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET url = excluded.url

-- name: set_draining
UPDATE nodes SET is_draining = 1 WHERE id = ?

-- name: leave
DELETE FROM nodes WHERE id = ?

-- name: add_secret
INSERT OR IGNORE INTO node_secret (id, secret) VALUES (1, ?)

-- name: secret
SELECT secret FROM node_secret

-- name: list
SELECT id, url, started_at, is_draining, host, pid, version,
    (SELECT count(*) FROM running WHERE owner = nodes.id)
FROM nodes ORDER BY started_at, id

-- name: ids
SELECT id FROM nodes

-- name: node_of
SELECT n.id, n.url, n.started_at, n.is_draining, n.host, n.pid, n.version, 0
FROM responses AS r
JOIN running AS u ON u.row_id = r.row_id
JOIN nodes AS n ON n.id = u.owner
WHERE r.id = ? AND r.tenant = ?

-- name: owners
-- Whoever runs a turn, and the nodes.
SELECT owner FROM running UNION SELECT id FROM nodes

-- name: orphans
-- The turns of an owner, with their headers.
SELECT running.row_id, running.claims, running.given_up_at, log.key, texts.body
FROM running
JOIN log ON log.row_id = running.row_id
JOIN texts ON texts.id = log.text
WHERE running.owner = ?

-- name: claim
UPDATE running SET owner = ?, claims = claims + ?, given_up_at = NULL WHERE row_id = ?

-- name: uncount
-- A turn that its owner has claimed did not run when the one before died.
UPDATE running SET claims = claims - 1 WHERE row_id = ? AND owner = ? AND claims > 0

-- name: last_row
-- The last row of a turn that has no end.
SELECT max(row_id) FROM log WHERE row_id BETWEEN ? AND ?

-- name: release
UPDATE running SET owner = 0, claims = claims + ?, given_up_at = ? WHERE row_id = ? AND owner = ?

-- name: first_given_up
SELECT min(given_up_at) FROM running WHERE owner = 0

-- name: given_up
SELECT u.row_id FROM responses AS r JOIN running AS u ON u.row_id = r.row_id
WHERE r.id = ? AND r.tenant = ? AND u.owner = 0
