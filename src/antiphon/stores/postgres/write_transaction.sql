-- name: create_conversation
INSERT INTO conversations (tenant, id, created_at, check_at, metadata) VALUES ($1, $2, $3, $3, $4)

-- name: move_head
UPDATE conversations SET head = $3, active = $4 WHERE tenant = $1 AND id = $2

-- name: add_erasure
INSERT INTO erasures (id, erased_at, tables)
VALUES (
    pg_current_xact_id()::text::bigint, extract(epoch FROM clock_timestamp())::float8, $1::text[]
)
