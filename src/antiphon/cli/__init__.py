"""The command line: decodes flags, calls the engine, prints."""
