"""The arguments of a call: reading what the model wrote, and telling it what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

#: Lengths in characters of what a model is told: one sentence, and all of them.
SENTENCE = 300
TEXT = 1500
_SENTENCES = 6


class ArgumentsInvalid(Exception):
    """The message is for the model to read."""


def read(text: str) -> dict[str, Any]:
    """The arguments as they were written. Raises ``ArgumentsInvalid``.

    Many models write nothing, or null, for a tool without parameters.
    """
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise ArgumentsInvalid(f"The arguments are not valid JSON: {short(error)}.") from None
    except RecursionError:
        raise ArgumentsInvalid("The arguments are nested too deeply.") from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise ArgumentsInvalid("The arguments are not a JSON object.")
    return arguments


def faults(sentences: Iterable[str]) -> ArgumentsInvalid:
    """One error of many sentences, each said once and kept short; so is their number."""
    distinct = list(dict.fromkeys(sentences))
    told = [short(one) for one in distinct[:_SENTENCES]]
    if len(distinct) > _SENTENCES:
        told.append(f"and {len(distinct) - _SENTENCES} more")
    return ArgumentsInvalid(f"Invalid arguments: {'; '.join(told)}.")


def place(path: Sequence[str | int]) -> str:
    """Where a fault is: ``("items", 0, "price")`` is argument 'items[0].price'."""
    if not path:
        return "the arguments"
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"argument '{short(written.removeprefix('.'), 100)}'"


def short(said: object, limit: int = SENTENCE) -> str:
    """What somebody else's object says of itself, in at most ``limit`` characters."""
    try:
        text = str(said)
    except Exception:  # noqa: BLE001 - an object that cannot even say what it is
        text = type(said).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
