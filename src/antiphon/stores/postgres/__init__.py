"""PostgreSQL store: the whole contract of the store protocols, for many processes at once."""
