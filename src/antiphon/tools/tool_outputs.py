"""Outputs: what a tool gave, or what went wrong, as the text that the model reads."""

from __future__ import annotations

from typing import Any

import msgspec

from antiphon.tools.argument_errors import TEXT, short


class Unencodable(Exception):
    """A result that is not JSON; the message says why."""


def output(result: Any) -> str:
    """A text as it is, anything else as compact JSON. Raises ``Unencodable``.

    Pydantic models, dataclasses, enums, dates, sets and the like become JSON as Pydantic
    does it; a result is never shortened.
    """
    if isinstance(result, str):
        return readable(str.__str__(result))
    from pydantic_core import from_json, to_json  # loaded on first use

    try:
        encoded = to_json(result)
        if b"NaN" in encoded or b"Infinity" in encoded:
            # Perhaps in a text, perhaps as a number: of those JSON has none.
            from_json(encoded, allow_inf_nan=False)
        return encoded.decode()
    except Exception as error:  # a result may run code of its own here
        raise Unencodable(short(error)) from error


def readable(text: str) -> str:
    """The text with what is no character replaced, so that it can be stored and sent.

    Half a surrogate pair comes from file names that are not UTF-8, for one.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def failed(message: str) -> str:
    """An error output: JSON text ``{"error": "..."}``."""
    return msgspec.json.encode({"error": short(readable(message), TEXT)}).decode()


def declined(reason: str | None = None) -> str:
    """The output of a call that a person did not agree to; ``reason`` is in their words."""
    why = f" The reason given: {reason}" if reason else ""
    return failed(f"A person declined this call, so it was not run.{why}")
