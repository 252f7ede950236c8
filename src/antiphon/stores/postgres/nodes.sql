-- name: add
INSERT INTO nodes (id, lease_until, started_at, host, pid)
VALUES ($1, now() + make_interval(secs => $2), $3, $4, $5)

-- name: renew
UPDATE nodes SET lease_until = now() + make_interval(secs => $2) WHERE id = $1

-- name: delete_dead
DELETE FROM nodes WHERE id = $1 AND lease_until <= now() RETURNING 1

-- name: exists
SELECT 1 FROM nodes WHERE id = $1

-- name: delete
DELETE FROM nodes WHERE id = $1

-- name: probe
UPDATE nodes SET lease_until = lease_until WHERE id = $1
