-- name: pending
SELECT id, erased_at, tables FROM erasures ORDER BY id

-- name: oldest_snapshot
-- The first transaction whose rows some open snapshot may see otherwise than all later ones do.
SELECT least(
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint - (
        SELECT coalesce(max(age), 0) FROM (
            SELECT age(backend_xmin) FROM pg_stat_activity
            WHERE pid <> pg_backend_pid() AND (datname = current_database() OR datname IS NULL)
            UNION ALL
            SELECT age(xmin) FROM pg_replication_slots
            UNION ALL
            SELECT age(transaction) FROM pg_prepared_xacts WHERE database = current_database()
        ) AS ages (age)
    )
)

-- name: forget
DELETE FROM erasures WHERE id = ANY($1::bigint[])

-- name: note
INSERT INTO vacuums AS v (id, erased_at, vacuumed_at)
VALUES (1, $1, extract(epoch FROM clock_timestamp())::float8)
ON CONFLICT (id) DO UPDATE SET
    erased_at = greatest(v.erased_at, excluded.erased_at), vacuumed_at = excluded.vacuumed_at

-- name: report
SELECT count(e.id), min(e.erased_at), max(v.erased_at), max(v.vacuumed_at)
FROM (SELECT 1) AS one LEFT JOIN vacuums AS v ON v.id = 1 LEFT JOIN erasures AS e ON true
