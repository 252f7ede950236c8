"""Tool outputs: encodes a tool's result or error as text for the model, and parses call
arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

#: Lengths in characters of an error output: one sentence, and all of them.
MAX_SENTENCE_LENGTH = 300
MAX_ERROR_LENGTH = 1500
_MAX_SENTENCES = 6


class InvalidArgumentsError(Exception):
    """The message is for the model to read."""


def parse_arguments(text: str) -> dict[str, Any]:
    """The arguments as they were written. Raises ``InvalidArgumentsError``.

    Many models write nothing, or null, for a tool without parameters.
    """
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidArgumentsError(
            f"The arguments are not valid JSON: {shorten(error)}."
        ) from None
    except RecursionError:
        raise InvalidArgumentsError("The arguments are nested too deeply.") from None
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise InvalidArgumentsError("The arguments are not a JSON object.")
    return arguments


def invalid_arguments(sentences: Iterable[str]) -> InvalidArgumentsError:
    """One error for several sentences: without duplicates, and limited in length and number."""
    distinct = list(dict.fromkeys(sentences))
    messages = [shorten(one) for one in distinct[:_MAX_SENTENCES]]
    if len(distinct) > _MAX_SENTENCES:
        messages.append(f"and {len(distinct) - _MAX_SENTENCES} more")
    return InvalidArgumentsError(f"Invalid arguments: {'; '.join(messages)}.")


def format_path(path: Sequence[str | int]) -> str:
    """A JSON path as words: ``("items", 0, "price")`` is argument 'items[0].price'."""
    if not path:
        return "the arguments"
    written = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return f"argument '{shorten(written.removeprefix('.'), 100)}'"


def shorten(value: object, limit: int = MAX_SENTENCE_LENGTH) -> str:
    """An object's ``str`` in at most ``limit`` characters; its type's name where that raises."""
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - an object that cannot even say what it is
        text = type(value).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ResultEncodingError(Exception):
    """A result that is not JSON; the message says why."""


def encode_output(result: Any) -> str:
    """A text as it is, anything else as compact JSON. Raises ``ResultEncodingError``.

    Pydantic models, dataclasses, enums, dates, sets and the like become JSON as Pydantic
    does it; a result is never shortened.
    """
    if isinstance(result, str):
        return replace_surrogates(str.__str__(result))
    from pydantic_core import to_json  # loaded on first use

    try:
        encoded = to_json(result)
        if b"NaN" in encoded or b"Infinity" in encoded:
            # Perhaps in a text, perhaps as a number: of those JSON has none.
            _check_numbers(encoded)
        return encoded.decode()
    except Exception as error:  # a result may run code of its own here
        raise ResultEncodingError(shorten(error)) from error


def _check_numbers(encoded: bytes) -> None:
    from pydantic_core import from_json  # loaded on first use

    try:
        from_json(encoded, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError("it has a number that is infinite or NaN") from error


def replace_surrogates(text: str) -> str:
    """The text with what is no character replaced, so that it can be stored and sent.

    Half a surrogate pair comes from file names that are not UTF-8, for one.
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def error_output(message: str) -> str:
    """An error output: JSON text ``{"error": "..."}``."""
    return msgspec.json.encode(
        {"error": shorten(replace_surrogates(message), MAX_ERROR_LENGTH)}
    ).decode()


def declined_output(reason: str | None = None) -> str:
    """The output of a call that a person did not agree to; ``reason`` is in their words."""
    why = f" The reason given: {reason}" if reason else ""
    return error_output(f"A person declined this call, so it was not run.{why}")
