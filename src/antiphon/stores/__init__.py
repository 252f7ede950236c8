"""Stores: implementations of the store protocols, in SQLite and in memory."""
