-- Turns by the fingerprint of their chain (core/chain_fingerprints.py), for clients that send the
-- whole history each time. A fingerprint is a hash of words, those of the turns before it too, so
-- that a row goes with each of these turns.
CREATE TABLE chain_fingerprints (
    -- of the turn's header
    row_id INTEGER PRIMARY KEY,
    fingerprint BLOB NOT NULL
);

CREATE INDEX chain_fingerprints_fingerprint ON chain_fingerprints (fingerprint);
