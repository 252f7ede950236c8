"""Shared by HTTP, gRPC and MCP: authorization, rate limits, request ids, metrics, decoding."""
