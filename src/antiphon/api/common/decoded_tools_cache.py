"""Decoded tools cache: tools that were decoded before, by their JSON.

Agents send the same tools with each request, and to check twenty of them takes longer than the
rest of a turn. Tools of MCP servers are not in it: they come with keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from antiphon.api.common.tool_requests import DecodedTools, Definition, ToolChoice

#: How many sets of tools, and how large their JSON may be, in bytes.
_SIZE: Final = 32
_MAX_BYTES: Final = 64 * 1024
_OWN_TYPES: Final = ("function", "custom")

Decode: TypeAlias = Callable[[Sequence[Definition], ToolChoice | None], DecodedTools]
_encode = msgspec.json.Encoder().encode


class DecodedToolsCache:
    """A cache before one way to decode tools, which must be pure."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._entries: dict[bytes, DecodedTools] = {}

    def get(self, definitions: Sequence[Definition], choice: ToolChoice | None) -> DecodedTools:
        """The tools, the same object as for the same JSON before. Raises what decoding raises."""
        key = _key_of(definitions, choice)
        if key is None:
            return self._decode(definitions, choice)
        found = self._entries.pop(key, None) or self._decode(definitions, choice)
        if len(self._entries) >= _SIZE:
            del self._entries[next(iter(self._entries))]
        # Behind all others: the one that was not used for longest goes first.
        self._entries[key] = found
        return found


def _key_of(definitions: Sequence[Definition], choice: ToolChoice | None) -> bytes | None:
    """None: these tools are not to be remembered."""
    if not definitions or any(one.get("type") not in _OWN_TYPES for one in definitions):
        return None
    try:
        key = _encode((definitions, choice))
    except RecursionError:
        # Decoding says what is wrong.
        return None
    return key if len(key) <= _MAX_BYTES else None
