"""Chat titles: the first words of the first question, on one line. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from antiphon.core.items import Message, decode_item, text_of

MAX_TITLE_LENGTH: Final = 80
#: How many of a turn's first items are looked at, and how much of the question.
TITLE_ITEMS: Final = 8
_MAX_SOURCE_LENGTH: Final = 1000
#: Invisible, but parts of words and of emoji: Persian and Indic scripts need them.
_JOINERS: Final = "\u200c\u200d"


def opening_of(items: Iterable[bytes]) -> str | None:
    """The first words of the first question among encoded items; None: there is none."""
    for data in items:
        item = decode_item(data)
        if isinstance(item, Message) and item.role == "user":
            line = single_line(text_of(item.content))
            if line:
                return line
    return None


def single_line(text: str) -> str:
    """The first words of a text on one line, at most ``MAX_TITLE_LENGTH`` characters."""
    # Control characters would end the line, or write over it, where it is printed.
    shown = (c if c.isprintable() or c in _JOINERS else " " for c in text[:_MAX_SOURCE_LENGTH])
    words = "".join(shown).split()
    line = " ".join(words)
    if len(line) <= MAX_TITLE_LENGTH:
        return line
    cut = line[:MAX_TITLE_LENGTH]
    head, space, _ = cut.rpartition(" ")
    # A single long word, such as a URL, is cut within.
    return (head if space and len(head) > MAX_TITLE_LENGTH // 2 else cut[:-1]) + "…"
