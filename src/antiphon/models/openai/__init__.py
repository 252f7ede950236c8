"""Upstream models over HTTP: the chat completions and Responses dialects and their transport."""
