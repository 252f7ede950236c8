"""Upstream models over xAI's gRPC API."""
