"""The MCP SDK's private names and messages that ``tools/mcp`` relies on, checked before users are.

When one of these fails after an upgrade of ``mcp``, look for a public way first; otherwise
mend ``tools/mcp/client.py`` (stdio transport) or ``tools/mcp/session.py`` (lost connections).
"""

from __future__ import annotations

import inspect

from mcp import StdioServerParameters
from mcp.client import _transport, session, streamable_http
from mcp.shared import jsonrpc_dispatcher


def test_the_transport_types_are_where_the_client_imports_them() -> None:
    for name in ("ReadStream", "Transport", "TransportStreams"):
        assert hasattr(_transport, name), f"mcp.client._transport.{name} moved: see client.py"
    assert hasattr(session, "MessageHandlerFnT"), "MessageHandlerFnT moved: see client.py"


def test_a_stdio_server_takes_an_encoding() -> None:
    """The line limit is a codec: without this parameter lines are unlimited again."""
    assert "encoding" in StdioServerParameters.model_fields


def test_the_http_transport_takes_a_client_and_an_event_limit() -> None:
    parameters = inspect.signature(streamable_http.streamable_http_client).parameters
    assert {"http_client", "max_sse_event_size"} <= set(parameters)


def test_a_lost_connection_has_the_message_that_the_session_looks_for() -> None:
    """``_is_connection_error`` tells the SDK's own errors from a server's by their messages."""
    assert "Connection closed" in inspect.getsource(jsonrpc_dispatcher)
