"""``Form``: what a tool's arguments look like, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

#: The arguments' text to the function's keyword arguments. Raises ``ArgumentsInvalid``.
Reader: TypeAlias = Callable[[str], dict[str, Any]]


class Form(msgspec.Struct, frozen=True):
    """``schema`` is the JSON schema shown to the model.

    ``defaults`` are those of the function's own parameters, ``contexts`` the names of
    the parameters that take a ``ToolContext``.
    """

    schema: dict[str, Any]
    read: Reader
    description: str | None = None
    defaults: Mapping[str, Any] = {}
    contexts: tuple[str, ...] = ()
