"""Whatever is sent to a tool is answered, and what is wrong is never stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from mcp import Client, MCPError

from support.example_counts import examples
from support.http_server import ThreadServer, serving
from support.mcp_clients import over_http

TOOLS = (
    "stateful_chat",
    "retrieve_stateful_response",
    "delete_stateful_response",
    "search_conversations",
    "chat",
    "chat_with_reasoning",
    "chat_with_vision",
    "list_models",
    "",
    "no_such_tool",
)
NAMES = (
    "prompt",
    "response_id",
    "model",
    "system_prompt",
    "include_reasoning",
    "temperature",
    "max_tokens",
    "reasoning_effort",
    "image_urls",
    "image_paths",
    "detail",
    "query",
    "limit",
)
#: Half surrogate pairs too: JSON can hold them, Unicode text cannot.
#: The client itself cannot send halves of characters.
WORDS = st.text(max_size=20)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | WORDS
    | st.sampled_from(["resp_" + "0" * 32, "conv_" + "0" * 32, "grok-4", "low", "data:,"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.dictionaries(st.sampled_from(NAMES) | WORDS, VALUES, max_size=6)


class Door:
    """One server and one client for many calls."""

    def __init__(self, server: ThreadServer, client: Client, schemas: dict[str, Any]) -> None:
        self.server = server
        self.client = client
        self.schemas = schemas

    async def attempt(self, tool: str, arguments: dict[str, Any]) -> None:
        before = self.server.stored_count()
        try:
            result = await self.client.call_tool(tool, arguments)
        except (MCPError, UnicodeError, ValueError):
            # It was no JSON that could be sent or read: the client's doing, or the SDK's.
            result = None
        assert self.server.logged_errors == []
        stored = self.server.stored_count() - before
        if result is None or result.is_error:
            assert stored == 0
            if result is not None:
                assert result.content[0].type == "text"
                assert result.content[0].text
            return
        assert stored == (1 if tool == "stateful_chat" else 0)
        # What was taken fits the schema that was told.
        Draft202012Validator(self.schemas[tool]).validate(arguments)


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    with serving() as server:
        async with over_http(server) as client:
            tools = (await client.list_tools()).tools
            yield Door(server, client, {tool.name: tool.input_schema for tool in tools})


def test_whatever_is_sent_is_answered() -> None:
    # The portal opens and closes the client in one task, as the client wants it.
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(door()) as opened,
    ):

        @given(st.sampled_from(TOOLS), ARGUMENTS)
        @settings(
            max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.too_slow]
        )
        def attempt(tool: str, arguments: dict[str, Any]) -> None:
            portal.call(opened.attempt, tool, arguments)

        attempt()
