-- Conversations: named heads over chains. A turn on one sets busy to itself and head to its
-- parent when it begins; its end writes nothing here (stores/sqlite/conversation_reader.py).

CREATE TABLE conversations (
    -- 16 bytes, as the id of a response
    id BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    created_at REAL NOT NULL,
    -- responses.id of the newest turn that counts, and of the newest that was begun
    head BLOB,
    busy BLOB,
    -- JSON
    metadata BLOB NOT NULL
);

CREATE INDEX conversations_recent ON conversations (tenant, created_at, id);

-- The conversation that a response's request named.
ALTER TABLE responses ADD COLUMN conversation BLOB;

CREATE INDEX responses_conversation ON responses (conversation, place)
WHERE conversation IS NOT NULL;
