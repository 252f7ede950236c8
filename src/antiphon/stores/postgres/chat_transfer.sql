-- name: known
-- Which of some turns are there, each by its digest or else by its response, erased or not.
SELECT w.number, r.tree, r.thread, r.seq, c.epoch, r.id, r.timestamp
FROM unnest($2::bytea[], $3::bytea[]) WITH ORDINALITY AS w (digest, key, number)
LEFT JOIN imported_turns AS i ON i.tenant = $1 AND i.digest = w.digest
LEFT JOIN log AS l ON l.tree = i.tree AND l.thread = i.thread AND l.seq = i.seq AND l.part = 0
JOIN responses AS r ON r.tenant = $1 AND r.id = coalesce(l.key, w.key)
JOIN chats AS c ON c.tree = r.tree

-- name: is_taken
-- By whomsoever.
SELECT EXISTS (SELECT 1 FROM responses WHERE id = $1)

-- name: remember
INSERT INTO imported_turns (tenant, digest, tree, thread, seq, is_of_words)
SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::integer[], $6::boolean[])
ON CONFLICT (tenant, digest) DO UPDATE SET
    tree = excluded.tree, thread = excluded.thread, seq = excluded.seq,
    is_of_words = excluded.is_of_words

-- name: tree
-- All turns of a tree in the order of their threads; parents have lower depths.
SELECT seq, key, previous, created_at, header IS NOT NULL FROM log
WHERE tree = $1 AND part = 0 ORDER BY thread, seq
