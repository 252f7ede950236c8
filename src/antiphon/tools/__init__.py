"""Tools: Python functions and MCP servers, as ``ToolExecutor``s of ``turn.protocols``."""
