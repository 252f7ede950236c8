"""Decoded tools: those of the same JSON are decoded once, and only those that hold no secrets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from antiphon.api.common.decoded_tools_cache import DecodedToolsCache
from antiphon.api.common.tool_requests import DecodedTools, decode_tools, parse_tools
from antiphon.errors import InvalidRequestError


def tool(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object"}, **fields}


def again(value: Any) -> Any:
    """An equal value, as the next request brings it."""
    return json.loads(json.dumps(value))


class Decoder:
    """Decodes tools, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def decode(self, definitions: Any, choice: Any) -> DecodedTools:
        self.count += 1
        return decode_tools(parse_tools(definitions), choice)


def test_same_tools_are_decoded_once() -> None:
    cache = DecodedToolsCache((decoder := Decoder()).decode)
    tools = [tool("look"), {"type": "custom", "name": "write"}]
    first = cache.get(tools, "auto")
    assert cache.get(again(tools), "auto") is first
    assert decoder.count == 1
    for other, choice in (
        (tools[:1], "auto"),
        (tools[::-1], "auto"),
        ([tool("look", description="x"), tools[1]], "auto"),
        (tools, "required"),
        (tools, {"type": "function", "name": "look"}),
    ):
        assert cache.get(again(other), choice) == decoder.decode(other, choice) != first


def test_servers_and_their_keys_are_not_remembered() -> None:
    cache = DecodedToolsCache((decoder := Decoder()).decode)
    server = {
        "type": "mcp",
        "server_label": "a",
        "server_url": "https://example.com",
        "headers": {"authorization": "Bearer secret"},
    }
    for _ in range(2):
        cache.get([tool("look"), server], None)
    assert decoder.count == 2
    assert "secret" not in repr(vars(cache))


def test_invalid_tools_are_refused_each_time() -> None:
    cache = DecodedToolsCache(Decoder().decode)
    deep: Any = {}
    for _ in range(2000):
        deep = {"type": "object", "properties": {"a": deep}}
    for tools in ([tool("look"), tool("look", description="x")], [tool("a", parameters=deep)]):
        for _ in range(2):
            with pytest.raises(InvalidRequestError):
                cache.get(tools, None)


def test_only_the_last_ones_are_remembered() -> None:
    cache = DecodedToolsCache((decoder := Decoder()).decode)
    for number in range(100):
        cache.get([tool("always")], None)
        cache.get([tool(f"f{number}")], None)
    assert decoder.count == 101
    cache.get([tool("f0")], None)
    cache.get([tool("large", description="x" * 100_000)], None)
    cache.get([tool("large", description="x" * 100_000)], None)
    assert decoder.count == 104
