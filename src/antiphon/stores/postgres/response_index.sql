-- name: sort_key
SELECT timestamp, thread, seq FROM responses
WHERE tenant = $1 AND id = $2 AND timestamp IS NOT NULL

-- name: forwards
SELECT timestamp, tree, thread, seq FROM responses
WHERE tenant = $1 AND timestamp IS NOT NULL AND (timestamp, thread, seq) > ($2, $3, $4)
ORDER BY timestamp, thread, seq LIMIT $5

-- name: backwards
SELECT timestamp, tree, thread, seq FROM responses
WHERE tenant = $1 AND timestamp IS NOT NULL AND (timestamp, thread, seq) < ($2, $3, $4)
ORDER BY timestamp DESC, thread DESC, seq DESC LIMIT $5

-- name: with_fingerprints
-- Turns that have one of the fingerprints, by which of them it is; of several the newest first.
SELECT w.number, f.key
FROM unnest($2::bytea[]) WITH ORDINALITY AS w (fingerprint, number)
JOIN chain_fingerprints AS f ON f.tenant = $1 AND f.fingerprint = w.fingerprint
ORDER BY w.number, f.thread DESC, f.seq DESC

-- name: header_and_end
SELECT l.header, (
    SELECT e.ending FROM log AS e
    WHERE e.tree = l.tree AND e.thread = l.thread AND e.seq = l.seq AND e.ending IS NOT NULL
)
FROM log AS l WHERE l.tree = $1 AND l.thread = $2 AND l.seq = $3 AND l.part = 0

-- name: hold_header
SELECT header FROM log WHERE tree = $1 AND thread = $2 AND seq = $3 AND part = 0 FOR UPDATE

-- name: set_header
UPDATE log SET header = $4 WHERE tree = $1 AND thread = $2 AND seq = $3 AND part = 0
