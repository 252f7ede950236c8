-- name: put
INSERT INTO imports AS i (id, tenant, node, stored_at, body) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (id) DO UPDATE
SET node = excluded.node, stored_at = excluded.stored_at, body = excluded.body

-- name: delete_old
DELETE FROM imports WHERE stored_at <= $1

-- name: get
SELECT node, body, EXISTS (
    SELECT 1 FROM nodes AS n WHERE n.id = i.node AND n.lease_until > now()
) AS is_alive
FROM imports AS i WHERE i.id = $1 AND i.tenant = $2 AND i.stored_at > $3

-- name: list_records
SELECT node, body, EXISTS (
    SELECT 1 FROM nodes AS n WHERE n.id = i.node AND n.lease_until > now()
) AS is_alive
FROM imports AS i WHERE i.tenant = $1 AND i.stored_at > $2 ORDER BY i.stored_at DESC LIMIT $3
