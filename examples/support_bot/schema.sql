CREATE TABLE IF NOT EXISTS orders (
    id             TEXT PRIMARY KEY,
    status         TEXT NOT NULL,
    eta            TEXT,
    total_in_cents INTEGER NOT NULL
);

CREATE TABLE IF NOT EXISTS order_items (
    order_id       TEXT NOT NULL REFERENCES orders (id),
    name           TEXT NOT NULL,
    quantity       INTEGER NOT NULL,
    price_in_cents INTEGER NOT NULL,
    PRIMARY KEY (order_id, name)
);

-- A call that comes twice is one ticket. Some models number their calls from 1 in every
-- conversation, so its id alone would not do.
CREATE TABLE IF NOT EXISTS tickets (
    call_id    TEXT NOT NULL,
    name       TEXT NOT NULL,
    issue      TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (call_id, name, issue)
);

CREATE TABLE IF NOT EXISTS refunds (
    call_id         TEXT NOT NULL,
    order_id        TEXT NOT NULL REFERENCES orders (id),
    amount_in_cents INTEGER NOT NULL,
    reason          TEXT NOT NULL,
    created_at      TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (call_id, order_id)
);

-- Where the last conversation can be gone on with.
CREATE TABLE IF NOT EXISTS last_conversation (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    response_id TEXT NOT NULL
);

-- Orders to try it with.
INSERT OR IGNORE INTO orders VALUES
    ('ORD-123', 'on its way', '15 minutes', 2150),
    ('ORD-456', 'being prepared', '40 minutes', 1380),
    ('ORD-789', 'delivered', NULL, 2724);

INSERT OR IGNORE INTO order_items VALUES
    ('ORD-123', 'Margherita', 1, 1250),
    ('ORD-123', 'Tiramisu', 1, 900),
    ('ORD-456', 'Pad Thai', 1, 1380),
    ('ORD-789', 'New Yorker', 1, 1299),
    ('ORD-789', 'Tuna Salad', 1, 1049),
    ('ORD-789', 'Soda', 1, 188),
    ('ORD-789', 'Water', 1, 188);
