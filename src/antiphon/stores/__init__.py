"""Stores: implementations of the store protocols, in SQLite, in PostgreSQL and in memory."""
