"""In-memory store: the whole contract, gone when the process ends."""
