-- name: checks
-- Locks what a process's turns depend on: one row without columns where all is as expected, else
-- none. The process ($1) is alive, trees have their epochs ($2), it runs turns ($3), and others have
-- their keys ($4) and nothing behind them in their threads.
WITH alive AS MATERIALIZED (
    SELECT FROM nodes WHERE id = $1::bigint FOR KEY SHARE
), locked AS MATERIALIZED (
    SELECT c.epoch, w.epoch AS expected
    FROM unnest($2::tree_values[]) AS w
    JOIN chats AS c ON c.tree = w.tree
    ORDER BY c.tree FOR UPDATE OF c
), held AS MATERIALIZED (
    SELECT u.node
    FROM unnest($3::turn_values[]) AS w
    JOIN running AS u ON u.tree = w.tree AND u.thread = w.thread AND u.seq = w.seq
    ORDER BY u.tree, u.thread, u.seq FOR UPDATE OF u
), parents AS MATERIALIZED (
    SELECT FROM unnest($4::parent_values[]) AS w
    JOIN log AS l
        ON l.tree = w.tree AND l.thread = w.thread AND l.seq = w.seq AND l.part = 0
        AND l.key = w.key
    WHERE NOT EXISTS (
        SELECT FROM log AS next
        WHERE next.tree = w.tree AND next.thread = w.thread AND next.seq = w.seq + 1
        AND next.part = 0
    )
)
SELECT WHERE CASE
    WHEN NOT EXISTS (SELECT FROM alive) THEN false
    WHEN cardinality($2::tree_values[]) <> (
        SELECT count(*) FROM locked WHERE epoch = coalesce(expected, epoch)
    ) THEN false
    WHEN cardinality($3::turn_values[]) <> (SELECT count(*) FROM held WHERE node = $1) THEN false
    ELSE cardinality($4::parent_values[]) = (SELECT count(*) FROM parents)
END
