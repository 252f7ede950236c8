"""The MCP SDK's private names and messages that ``tools/mcp`` relies on, checked before users are.

When one of these fails after an upgrade of ``mcp``, look for a public way first; otherwise
change ``tools/mcp/client.py`` (stdio transport) or ``tools/mcp/session.py`` (lost connections).
"""

from __future__ import annotations

import inspect

from mcp import StdioServerParameters
from mcp.client import _transport, session, streamable_http
from mcp.shared import jsonrpc_dispatcher


def test_sdk_transport_types_exist() -> None:
    for name in ("ReadStream", "Transport", "TransportStreams"):
        assert hasattr(_transport, name), f"mcp.client._transport.{name} moved: see client.py"
    assert hasattr(session, "MessageHandlerFnT"), "MessageHandlerFnT moved: see client.py"


def test_sdk_stdio_parameters_have_an_encoding() -> None:
    """The line limit is a codec: without this parameter lines are unlimited again."""
    assert "encoding" in StdioServerParameters.model_fields


def test_sdk_http_transport_takes_a_client_and_an_event_limit() -> None:
    parameters = inspect.signature(streamable_http.streamable_http_client).parameters
    assert {"http_client", "max_sse_event_size"} <= set(parameters)


def test_sdk_connection_closed_message_exists() -> None:
    """``_is_connection_error`` tells the SDK's own errors from a server's by their messages."""
    assert "Connection closed" in inspect.getsource(jsonrpc_dispatcher)
