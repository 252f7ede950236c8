"""Message lists: messages that come within other lists, or as pairs, in one list. Pure.

LangChain writes a message as a pair of its role and its words, and batches are lists of lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from antiphon.api.common.item_shapes import ROLE_NAMES

_ROLES: Final = frozenset(("system", "developer", "user", "assistant", *ROLE_NAMES))


def is_list_of_messages(value: Any) -> bool:
    """Whether a value is a list of objects with roles, and not words that look like one."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(one, dict) and "role" in one for one in value)
    )


def flatten_messages(given: list[Any]) -> Iterator[Any]:
    """The messages of a list: pairs as messages, and those of lists within it."""
    for one in given:
        match one:
            case [str(role), content] if role.strip().lower() in _ROLES:
                yield {"role": role, "content": content}
            case list():
                yield from flatten_messages(one)
            case _:
                yield one
