"""Context policies: what of a long history a model is shown. Data; ``turn.trimming`` applies it.

All of them take whole turns, oldest first. The newest turn is always shown, system
messages stay, and a tool call is never parted from its output. What is not shown
stays in the store.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from antiphon.errors import InvalidRequestError

_SUMMARY_PROMPT = "Please provide a brief summary of our conversation so far."


class Window(msgspec.Struct, frozen=True):
    """Show the newest turns that have at most ``max_messages`` messages together.

    System messages are not counted. Raises ``InvalidRequestError`` below 1.
    """

    max_messages: int = 50

    def __post_init__(self) -> None:
        _check_minimum(1, max_messages=self.max_messages)


class TokenBudget(msgspec.Struct, frozen=True):
    """Show the newest turns that have at most ``max_tokens`` tokens together.

    Instructions, system messages and tools count as well. Earlier turns are counted as
    the model reported them, new words by the model's own tokenizer where it has one and
    else by an estimate. A turn that does not fit alone raises ``ContextLengthExceededError``.
    """

    max_tokens: int

    def __post_init__(self) -> None:
        _check_minimum(1, max_tokens=self.max_tokens)


class Summarize(msgspec.Struct, frozen=True):
    """Have the model sum up the oldest turns before the context exceeds a limit.

    The limit is ``max_tokens`` or ``max_messages`` (or both, whichever comes first);
    the newest ``keep_turns`` turns stay as they are. ``prompt`` is what the model is
    asked. One more call to the model each time, paid like any other. Raises
    ``InvalidRequestError`` without a limit, and for limits below 1.
    """

    max_tokens: int | None = None
    max_messages: int | None = None
    keep_turns: int = 4
    prompt: str = _SUMMARY_PROMPT

    def __post_init__(self) -> None:
        if self.max_tokens is None and self.max_messages is None:
            raise InvalidRequestError(
                "Summarize needs a limit: max_tokens, max_messages, or both.",
                code="missing_required_parameter",
                param="max_tokens",
            )
        limits = {"max_tokens": self.max_tokens, "max_messages": self.max_messages}
        _check_minimum(1, **{name: value for name, value in limits.items() if value is not None})
        _check_minimum(0, keep_turns=self.keep_turns)
        if not _has_text(self.prompt):
            raise InvalidRequestError(
                f"prompt is what the model is asked, in words, not {self.prompt!r}.",
                param="prompt",
            )


ContextPolicy: TypeAlias = Window | TokenBudget | Summarize


def _check_minimum(minimum: int, **given: object) -> None:
    for name, value in given.items():
        if type(value) is not int or value < minimum:
            raise InvalidRequestError(
                f"{name} is a whole number of at least {minimum}, not {value!r}.", param=name
            )


def _has_text(prompt: object) -> bool:
    """Whether it is a text with words in it, that can be sent."""
    try:
        return isinstance(prompt, str) and bool(prompt.encode().strip())
    except UnicodeEncodeError:
        return False
