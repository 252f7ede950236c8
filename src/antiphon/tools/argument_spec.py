"""``ArgumentSpec``: what a tool's arguments look like, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

#: The arguments' text to the function's keyword arguments. Raises ``InvalidArgumentsError``.
ArgumentDecoder: TypeAlias = Callable[[str], dict[str, Any]]


class ArgumentSpec(msgspec.Struct, frozen=True):
    """``schema`` is the JSON schema shown to the model.

    ``defaults`` are those of the function's own parameters, ``contexts`` the names of
    the parameters that take a ``ToolContext``.
    """

    schema: dict[str, Any]
    decode: ArgumentDecoder
    description: str | None = None
    defaults: Mapping[str, Any] = {}
    context_parameters: tuple[str, ...] = ()
