"""An MCP server with two tools, for the page about the server."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("shop", log_level="CRITICAL")


@server.tool()
def lookup(order_id: str) -> str:
    """Look up where an order is."""
    return f"{order_id} is on its way."


@server.tool()
def refund(order_id: str) -> str:
    """Pay an order back."""
    return f"{order_id} is paid back."


if __name__ == "__main__":
    server.run("stdio")
