"""Upstream models over HTTP: chat completions and the Responses API."""
