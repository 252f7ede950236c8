"""SQLite store: one file, one writer thread, a pool of readers."""
