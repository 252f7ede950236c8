"""Full-text search in PostgreSQL."""
