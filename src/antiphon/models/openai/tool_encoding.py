"""Tool encoding: a request's tools as JSON, made once while they stay the same. Pure.

Agents send the same tools, some 10 KB of them, with each turn, and call the model several times
in one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from antiphon.core.turns import FunctionTool

_encode = msgspec.json.Encoder().encode
#: How many lists of tools are remembered, and the longest, in bytes.
_MAX_REMEMBERED: Final = 64
_LONGEST_REMEMBERED: Final = 64 * 1024
_Tools: TypeAlias = tuple[FunctionTool, ...]


class ToolEncoder:
    """Encodes lists of tools; ``describe`` is a tool as the dialect has it."""

    def __init__(self, describe: Callable[[FunctionTool], Mapping[str, Any]]) -> None:
        self._describe = describe
        self._last: tuple[_Tools, msgspec.Raw] = ((), msgspec.Raw(b"[]"))
        #: By the tools' own JSON; the least recently used is the first.
        self._remembered: dict[bytes, msgspec.Raw] = {}

    def encode(
        self, tools: _Tools, hosted_tools: Sequence[Mapping[str, Any]] = ()
    ) -> msgspec.Raw | None:
        """The tools as a JSON array, those that the upstream runs last; None: there are none."""
        last_tools, encoded = self._last
        if tools is not last_tools:
            encoded = self._look_up(tools)
            self._last = (tools, encoded)
        if not hosted_tools:
            return encoded if tools else None
        hosted = _encode(hosted_tools)
        return msgspec.Raw(bytes(encoded)[:-1] + b"," + hosted[1:] if tools else hosted)

    def _look_up(self, tools: _Tools) -> msgspec.Raw:
        key = _encode(tools)
        encoded = self._remembered.pop(key, None)
        if encoded is None:
            encoded = msgspec.Raw(_encode([self._describe(tool) for tool in tools]))
        if len(key) <= _LONGEST_REMEMBERED:
            self._remembered[key] = encoded
            if len(self._remembered) > _MAX_REMEMBERED:
                del self._remembered[next(iter(self._remembered))]
        return encoded
