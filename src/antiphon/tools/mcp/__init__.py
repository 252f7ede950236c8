"""MCP client: tools of MCP servers, offered to a turn."""
