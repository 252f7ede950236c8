"""Styled line: spans of text with a style and a link, their width, and their escape codes. Pure."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

import msgspec
from rich.color import ColorSystem
from rich.style import Style
from wcwidth import wcwidth

PLAIN = Style()
#: Every control character but newline and tab would steer the terminal; so would, in the eyes of
#: its reader, the characters that reorder those around them.
_UNSAFE: dict[int, str | None] = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
)
del _UNSAFE[ord("\n")], _UNSAFE[ord("\t")]
_UNSAFE |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")
_UNSAFE |= {0x2028: " ", 0x2029: " "}
#: Joins two characters to one glyph, and asks for a glyph of two columns.
ZERO_WIDTH_JOINER = "\u200d"
_EMOJI_VARIATION = "\ufe0f"
#: What a line that continues another begins with: spaces, and the bars of quotes.
_INDENT_CHARS = " │"


class Span(msgspec.Struct, frozen=True):
    """A piece of text of one style; ``link`` is the address that it leads to."""

    text: str
    style: Style = PLAIN
    link: str | None = None


Line: TypeAlias = tuple[Span, ...]


def make_safe(text: str) -> str:
    """``text`` without what a terminal would obey instead of showing it."""
    return text.translate(_UNSAFE)


@lru_cache(maxsize=4096)
def char_width(char: str) -> int:
    """The most columns that a terminal takes for a character.

    Terminals differ in sequences that make one glyph: some give each part its own columns.
    """
    if char == _EMOJI_VARIATION:
        return 1
    return max(wcwidth(char), 0)


def text_width(text: str) -> int:
    """The most columns that a terminal takes for a text."""
    return len(text) if text.isascii() else sum(map(char_width, text))


def has_certain_width(text: str) -> bool:
    """Whether all terminals take as many columns for a text as ``text_width`` says.

    They agree on ASCII, and on the letters and marks of East Asia that are wide by definition; they
    differ in emoji, in accents, and in characters whose width depends on the language.
    """
    return text.isascii() or all(map(_is_width_certain, text))


@lru_cache(maxsize=4096)
def _is_width_certain(char: str) -> bool:
    return char.isascii() or (
        unicodedata.east_asian_width(char) in "WF" and unicodedata.category(char)[0] in "LP"
    )


def line_width(line: Iterable[Span]) -> int:
    return sum(text_width(span.text) for span in line)


def line_text(line: Iterable[Span]) -> str:
    return "".join(span.text for span in line)


def is_joined(char: str, previous: str) -> bool:
    """Whether a character belongs to the glyph of the one before it."""
    return previous == ZERO_WIDTH_JOINER or (
        not char.isascii()
        and (char_width(char) == 0 or char == _EMOJI_VARIATION or bool(unicodedata.combining(char)))
    )


def ascii_length(text: str) -> int:
    """How many characters a text has before the first that is not ASCII."""
    return next((at for at, char in enumerate(text) if not char.isascii()), len(text))


def join_spans(spans: Iterable[Span]) -> Line:
    """Spans of one style and link after each other as one."""
    joined: list[Span] = []
    for span in spans:
        if not span.text:
            continue
        if joined and joined[-1].style == span.style and joined[-1].link == span.link:
            joined[-1] = Span(joined[-1].text + span.text, span.style, span.link)
        else:
            joined.append(span)
    return tuple(joined)


def crop(line: Iterable[Span], width: int) -> Line:
    """As much of a line as fits into ``width`` columns."""
    cropped: list[Span] = []
    for span in line:
        for end, char in enumerate(span.text):
            width -= char_width(char)
            if width < 0:
                cropped.append(Span(span.text[:end], span.style, span.link))
                return join_spans(cropped)
        cropped.append(span)
    return join_spans(cropped)


def crop_text(text: str, width: int) -> str:
    """A text made safe; one of more than ``width`` columns ends with an ellipsis there."""
    line: Line = (Span(make_safe(text)),)
    if line_width(line) <= width:
        return line_text(line)
    return f"{line_text(crop(line, width - 1))}…"


def split_common(old: Line, new: Line) -> tuple[Line, Line, Line]:
    """What both lines begin with, what only ``old`` has after it, and what only ``new`` has."""
    shared: list[Span] = []
    olds, news = list(old), list(new)
    while olds and news and (olds[0].style, olds[0].link) == (news[0].style, news[0].link):
        length = _common_length(olds[0].text, news[0].text)
        if length:
            shared.append(Span(news[0].text[:length], news[0].style, news[0].link))
        has_diverged = False
        for rest in (olds, news):
            left = rest.pop(0)
            if len(left.text) > length:
                rest.insert(0, Span(left.text[length:], left.style, left.link))
                has_diverged = True
        if has_diverged:
            break
    return tuple(shared), tuple(olds), tuple(news)


def _common_length(one: str, other: str) -> int:
    if one.startswith(other):
        return len(other)
    if other.startswith(one):
        return len(one)
    return next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


def drop_shown_text(line: Line, shown: str) -> Line:
    """A line without the characters that it and ``shown`` begin with, its indent set aside."""
    text = line_text(line)
    indent = len(text) - len(text.lstrip(_INDENT_CHARS))
    if text.startswith(shown, indent):
        return drop_text(line, indent + len(shown))
    return drop_text(line, _common_length(text, shown))


def drop_text(line: Line, length: int) -> Line:
    """A line without its first ``length`` characters."""
    left: list[Span] = []
    for span in line:
        left.append(Span(span.text[length:], span.style, span.link))
        length = max(length - len(span.text), 0)
    return join_spans(left)


class Pen:
    """What a terminal was last told of style and link, so that only changes are written.

    ``colors`` None: nothing is.
    """

    def __init__(self, colors: ColorSystem | None) -> None:
        self._colors = colors
        self._codes = ""
        self._link: str | None = None

    def write(self, spans: Iterable[Span]) -> str:
        """Spans as text with escape codes, which leave style and link as the last one has them."""
        return "".join(self._move_to(span.style, span.link) + span.text for span in spans)

    def lift(self) -> str:
        """Back to plain text."""
        return self._move_to(PLAIN, None)

    def _move_to(self, style: Style, link: str | None) -> str:
        if self._colors is None:
            return ""
        codes, written = _style_codes(style, self._colors), ""
        if link != self._link and self._link is not None:
            written += "\x1b]8;;\x1b\\"
        if codes != self._codes:
            written += ("\x1b[0m" if self._codes else "") + codes
        if link != self._link and link is not None:
            # One id for all pieces of a link that was wrapped: a terminal marks all of it.
            number = zlib.crc32(link.encode(errors="replace")) & 0xFFFF
            written += f"\x1b]8;id={number:x};{link}\x1b\\"
        self._codes, self._link = codes, link
        return written


@lru_cache(maxsize=512)
def _style_codes(style: Style, colors: ColorSystem) -> str:
    return style.render("x", color_system=colors).partition("x")[0]


def render_spans(spans: Iterable[Span], colors: ColorSystem | None) -> str:
    """Spans as text with escape codes; ``colors`` None: as plain text."""
    pen = Pen(colors)
    return pen.write(spans) + pen.lift()
