-- name: add
INSERT INTO chats (
    tree, key, tenant, conversation, created_at, updated_at, newest_thread, newest_seq, branches,
    input_tokens, cached_tokens, output_tokens, cost, check_at
)
SELECT tree, key, tenant, conversation, at, at, thread, seq, branches, input, cached, output, cost,
    oldest
FROM unnest($1::chat_values[])

-- name: change
-- The newest turn hardly ever is not the one that began last. Without a turn: its usage alone.
UPDATE chats AS c SET
    newest_thread = CASE WHEN
        w.at IS NOT NULL AND (c.newest_thread IS NULL
        OR (w.at, w.thread, w.seq) > (c.updated_at, c.newest_thread, c.newest_seq))
    THEN w.thread ELSE c.newest_thread END,
    newest_seq = CASE WHEN
        w.at IS NOT NULL AND (c.newest_thread IS NULL
        OR (w.at, w.thread, w.seq) > (c.updated_at, c.newest_thread, c.newest_seq))
    THEN w.seq ELSE c.newest_seq END,
    updated_at = CASE WHEN
        w.at IS NOT NULL AND (c.newest_thread IS NULL
        OR (w.at, w.thread, w.seq) > (c.updated_at, c.newest_thread, c.newest_seq))
    THEN w.at ELSE c.updated_at END,
    branches = c.branches + w.branches,
    input_tokens = c.input_tokens + w.input,
    cached_tokens = c.cached_tokens + w.cached,
    output_tokens = c.output_tokens + w.output,
    cost = CASE WHEN w.cost IS NULL THEN c.cost ELSE coalesce(c.cost, 0) + w.cost END,
    check_at = least(c.check_at, w.oldest)
FROM unnest($1::chat_values[]) AS w
WHERE c.tree = w.tree

-- name: add_waiting
INSERT INTO waiting (tenant, tree, thread, seq)
SELECT * FROM unnest($1::tenant_turn_values[])
ON CONFLICT DO NOTHING

-- name: remove_waiting
DELETE FROM waiting AS w
USING unnest($1::tenant_turn_values[]) AS g
WHERE w.tenant = g.tenant AND w.tree = g.tree AND w.thread = g.thread AND w.seq = g.seq

-- name: add_usage_sums
INSERT INTO usage_sums AS u
    (tenant, day, model, key_id, slot, turns, input_tokens, cached_tokens, output_tokens, cost)
SELECT w.tenant, w.day, w.model, w.key_id, $2::smallint, w.turns, w.input, w.cached, w.output,
    w.cost
FROM unnest($1::usage_values[]) AS w
ON CONFLICT (tenant, day, model, key_id, slot) DO UPDATE SET
    turns = u.turns + excluded.turns,
    input_tokens = u.input_tokens + excluded.input_tokens,
    cached_tokens = u.cached_tokens + excluded.cached_tokens,
    output_tokens = u.output_tokens + excluded.output_tokens,
    cost = CASE WHEN excluded.cost IS NULL THEN u.cost
        ELSE coalesce(u.cost, 0) + excluded.cost END

-- name: settle
-- After an erasure: the newest turn of those left, a generated title goes, and all but the epoch of
-- a chat of which nothing is left.
WITH newest AS (
    SELECT l.timestamp, l.thread, l.seq
    FROM threads AS t CROSS JOIN LATERAL (
        SELECT log.timestamp, log.thread, log.seq FROM log
        WHERE log.tree = $1 AND log.thread = t.id AND log.part = 0 AND log.header IS NOT NULL
        ORDER BY log.seq DESC LIMIT 1
    ) AS l
    WHERE t.tree = $1
), top AS (
    SELECT timestamp, thread, seq FROM newest ORDER BY timestamp DESC, thread DESC, seq DESC LIMIT 1
), old AS (
    SELECT tree, newest_thread, newest_seq FROM chats WHERE tree = $1
)
UPDATE chats AS c SET
    newest_thread = top.thread,
    newest_seq = top.seq,
    updated_at = CASE
        WHEN top.thread IS NULL OR (top.thread, top.seq) = (o.newest_thread, o.newest_seq)
        THEN c.updated_at
        -- An imported turn's timestamp is later than what it says of itself.
        ELSE least(c.updated_at, top.timestamp)
    END,
    branches = (SELECT count(*) FROM newest),
    title = CASE WHEN top.thread IS NULL OR c.is_title_generated THEN NULL ELSE c.title END,
    is_title_generated = false,
    metadata = CASE WHEN top.thread IS NULL THEN NULL ELSE c.metadata END,
    is_pinned = c.is_pinned AND top.thread IS NOT NULL,
    is_permanent = c.is_permanent AND top.thread IS NOT NULL,
    check_at = CASE WHEN top.thread IS NOT NULL THEN '-Infinity'::float8 END
FROM old AS o LEFT JOIN top ON true
WHERE c.tree = o.tree AND o.newest_thread IS NOT NULL
RETURNING c.tenant, c.key, top.thread IS NULL AS is_gone
