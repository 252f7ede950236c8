"""Full-text search of the SQLite store: an inverted index in immutable segments."""
