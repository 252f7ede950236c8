-- name: add
INSERT INTO nodes (
    id, lease_until, started_at, host, pid, is_node, url, version, is_draining
) VALUES ($1, now() + make_interval(secs => $2), $3, $4, $5, $6, $7, $8, $9)
RETURNING extract(epoch FROM clock_timestamp())::float8

-- name: renew
-- The time, and whether another process follows the feed.
UPDATE nodes SET lease_until = now() + make_interval(secs => $2), is_following = $3 WHERE id = $1
RETURNING extract(epoch FROM clock_timestamp())::float8, EXISTS (
    SELECT FROM nodes AS n WHERE n.is_following AND n.id <> $1 AND n.lease_until > now()
)

-- name: describe
UPDATE nodes SET is_node = $2, url = $3, version = $4, is_draining = $5 WHERE id = $1

-- name: delete_dead
DELETE FROM nodes WHERE id = $1 AND lease_until <= now() RETURNING 1

-- name: exists
SELECT 1 FROM nodes WHERE id = $1

-- name: delete
DELETE FROM nodes WHERE id = $1

-- name: probe
UPDATE nodes SET lease_until = lease_until WHERE id = $1

-- name: add_secret
INSERT INTO node_secret (id, secret) VALUES (1, $1) ON CONFLICT (id) DO NOTHING

-- name: secret
SELECT secret FROM node_secret WHERE id = 1

-- name: list
SELECT id, url, started_at, is_draining, lease_until > now() AS is_alive, host, pid, version,
    (SELECT count(*) FROM running AS u WHERE u.node = nodes.id)::integer AS turns
FROM nodes WHERE is_node ORDER BY started_at, id

-- name: has_nodes
SELECT EXISTS (SELECT 1 FROM nodes WHERE is_node AND lease_until > now())

-- name: node_of
SELECT n.id, n.url, n.started_at, n.is_draining, true AS is_alive, n.host, n.pid, n.version,
    0 AS turns
FROM responses AS r
JOIN running AS u ON u.tree = r.tree AND u.thread = r.thread AND u.seq = r.seq
JOIN nodes AS n ON n.id = u.node AND n.is_node AND n.lease_until > now()
WHERE r.tenant = $1 AND r.id = $2 AND r.timestamp IS NOT NULL

-- name: dead
-- Processes whose leases are over, and 0 where turns were given up.
SELECT id FROM nodes WHERE lease_until <= now() AND id <> $1
UNION ALL
SELECT 0 WHERE EXISTS (SELECT 1 FROM running WHERE node = 0)

-- name: orphans
-- The turns of a node, with their headers.
SELECT u.tree, u.thread, u.seq, u.tenant, u.key, u.claims, u.given_up_at, l.header
FROM running AS u
JOIN log AS l ON l.tree = u.tree AND l.thread = u.thread AND l.seq = u.seq AND l.part = 0
WHERE u.node = $1 ORDER BY u.tree, u.thread, u.seq FOR UPDATE OF u

-- name: claim
UPDATE running AS u SET node = $4, claims = u.claims + $5, given_up_at = NULL
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS w (tree, thread, seq)
WHERE u.tree = w.tree AND u.thread = w.thread AND u.seq = w.seq

-- name: uncount
-- A turn that its node has claimed did not run when the one before died.
UPDATE running SET claims = claims - 1
WHERE tree = $1 AND thread = $2 AND seq = $3 AND node = $4 AND claims > 0

-- name: release
-- The time is that of the caller's clock, if it has one.
UPDATE running AS u SET node = 0, claims = u.claims + $5,
    given_up_at = coalesce($6, extract(epoch FROM now())::float8)
FROM unnest($1::bigint[], $2::bigint[], $3::integer[]) AS w (tree, thread, seq)
WHERE u.tree = w.tree AND u.thread = w.thread AND u.seq = w.seq AND u.node = $4

-- name: first_given_up
SELECT min(given_up_at) FROM running WHERE node = 0

-- name: given_up
SELECT u.tree, u.thread, u.seq, u.tenant, u.key
FROM responses AS r
JOIN running AS u ON u.tree = r.tree AND u.thread = r.thread AND u.seq = r.seq AND u.node = 0
WHERE r.tenant = $1 AND r.id = $2 AND r.timestamp IS NOT NULL FOR UPDATE OF u

-- name: parts
SELECT part, images, input, output FROM log WHERE tree = $1 AND thread = $2 AND seq = $3
ORDER BY part
