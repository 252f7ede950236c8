-- The search index: which words the ended turns hold. Turns are indexed in chunks, many of
-- a tenant's at a time. A chunk is written once and never changed: whatever is erased from a
-- turn dissolves its chunk, in the same statement, and the chunk's other turns wait to be
-- indexed again.
--
-- No word is in here, only a hash of it under the chunk's own secret. SQLite leaves copies of
-- rows that it moves in the unused parts of pages, where secure_delete does not come; of a chunk
-- that is gone they say nothing.

-- The turns that have ended and are in no chunk, by their first place in the log. A mark is
-- new whenever the turn's words are: it tells who has read them whether they still hold.
CREATE TABLE search_waiting (
    place INTEGER PRIMARY KEY,
    mark INTEGER NOT NULL
);

CREATE TABLE search_chunks (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    -- how many turns are in it, and how many words in those
    turns INTEGER NOT NULL,
    words INTEGER NOT NULL,
    secret BLOB NOT NULL,
    -- among how many drawers its words lie
    drawers INTEGER NOT NULL,
    -- 20 bytes for each turn: place, time, words
    spots BLOB NOT NULL
);

-- All that is read of every chunk: without the spots.
CREATE INDEX search_tenants ON search_chunks (tenant, id, turns, words, secret, drawers);

CREATE TABLE search_places (
    place INTEGER PRIMARY KEY,
    chunk INTEGER NOT NULL
);

CREATE INDEX search_members ON search_places (chunk);

-- Some sixteen words each, and which turns hold them (stores/sqlite/search/segment.py): a row for each
-- word would take ten times as long to write.
CREATE TABLE search_drawers (
    chunk INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (chunk, number)
) WITHOUT ROWID;

CREATE TRIGGER search_dissolve AFTER DELETE ON search_chunks BEGIN
    INSERT OR IGNORE INTO search_waiting (place, mark)
    SELECT place, random() FROM search_places WHERE chunk = OLD.id;
    DELETE FROM search_drawers WHERE chunk = OLD.id;
    DELETE FROM search_places WHERE chunk = OLD.id;
END;

-- A turn ends (kind 3) at the last of its 32768 places.
CREATE TRIGGER search_ended AFTER INSERT ON log WHEN NEW.kind = 3 BEGIN
    INSERT OR REPLACE INTO search_waiting (place, mark) VALUES (NEW.place - 32767, random());
END;

-- An item (kind 1, 2) is erased with its turn, or another is put in its place.
CREATE TRIGGER search_erased AFTER DELETE ON log WHEN OLD.kind IN (1, 2) BEGIN
    UPDATE search_waiting SET mark = random() WHERE place = OLD.place & ~32767;
    DELETE FROM search_chunks
    WHERE id = (SELECT chunk FROM search_places WHERE place = OLD.place & ~32767);
END;

CREATE TRIGGER search_changed AFTER UPDATE ON log WHEN OLD.kind IN (1, 2) BEGIN
    UPDATE search_waiting SET mark = random() WHERE place = OLD.place & ~32767;
    DELETE FROM search_chunks
    WHERE id = (SELECT chunk FROM search_places WHERE place = OLD.place & ~32767);
END;

-- What was said before there was an index.
INSERT INTO search_waiting (place, mark)
SELECT r.place, random() FROM responses AS r
WHERE r.tenant IS NOT NULL AND NOT EXISTS (SELECT 1 FROM running AS u WHERE u.place = r.place);
