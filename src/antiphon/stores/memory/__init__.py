"""In-memory store: the whole contract of the store protocols; its data ends with the process."""
