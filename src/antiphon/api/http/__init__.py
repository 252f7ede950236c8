"""The HTTP server that OpenAI clients talk to."""
