-- name: bounds
-- Of the rows of transactions before all that still run: none will come to lie between them. Where
-- there are fewer than so many none was ever deleted, and the first is the first of all.
SELECT
    CASE
        WHEN (SELECT count(*) FROM (SELECT 1 FROM changes LIMIT $1) AS counted) < $1 THEN 1
        ELSE (SELECT id FROM changes ORDER BY id LIMIT 1)
    END AS first,
    id, mark
FROM changes WHERE id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
ORDER BY id DESC LIMIT 1

-- name: read
SELECT id, mark, body FROM changes
WHERE id > $1 AND id < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
ORDER BY id LIMIT $2

-- name: chat_keys
SELECT tree, key FROM chats WHERE tree = ANY($1::bigint[]) AND newest_thread IS NOT NULL

-- name: trim
DELETE FROM changes WHERE id < (SELECT id FROM changes ORDER BY id DESC OFFSET $1 LIMIT 1)

-- name: delete_future
-- Of a database that was restored into a server that has had fewer transactions.
DELETE FROM changes WHERE id > pg_snapshot_xmax(pg_current_snapshot())::text::bigint

-- name: notify
SELECT pg_notify('antiphon_changes', '')
