"""Line wrapper: breaks styled text into lines between words while it arrives. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import msgspec

from antiphon.cli.markdown.styled_line import (
    Line,
    Span,
    char_width,
    is_joined,
    join_spans,
    line_width,
)

#: What does not begin a line though it is wide.
_CLOSING_MARKS = frozenset("，。、！？：；）」』】》〉〕…ー")  # noqa: RUF001 - they are what is meant


class _Char(msgspec.Struct):
    """A character and the span that it is of."""

    text: str
    span: Span


class LineWrapper:
    """Words in lines of ``width`` columns; ``first`` begins the first line, ``indent`` the others.

    Only a word longer than a line is broken. ``take_lines`` are the lines that are whole: nothing
    that follows changes them.
    """

    def __init__(self, width: int, first: Line = (), indent: Line = ()) -> None:
        self._width = max(width, 1)
        #: The width from the next line on.
        self._next_width = self._width
        self._first = first
        self._indent = indent
        self._lines: list[Line] = []
        self._line: list[_Char] = []
        self._word: list[_Char] = []
        self._space: _Char | None = None
        self._column = line_width(first)
        self._word_width = 0
        #: Whether no word has a place in the present line yet.
        self._is_empty = True
        self._previous = ""

    def add(self, spans: Iterable[Span]) -> None:
        for span in spans:
            for char in span.text:
                self._add_char(char, span)

    def set_width(self, width: int) -> None:
        """Lines have another width, from the next one on: words stay where they are."""
        self._next_width = max(width, 1)

    def end_line(self) -> None:
        """Whatever follows begins a line."""
        self._end_word()
        self._break_line()
        self._space = None

    def take_lines(self) -> list[Line]:
        lines, self._lines = self._lines, []
        return lines

    def unfinished(self, preview: Iterable[Span] = ()) -> Line:
        """The line as it stands, with as much of ``preview`` as it has room for."""
        twin = copy.copy(self)
        twin._lines, twin._line, twin._word = [], [*self._line], [*self._word]
        for span in preview:
            for char in span.text:
                twin._add_char(char, span)
                if twin._lines:
                    return twin._lines[0]
        twin._end_word()
        return twin._lines[0] if twin._lines else twin._as_line(twin._line)

    def _add_char(self, char: str, span: Span) -> None:
        if char in " \t\n":
            self._end_word()
            if not self._is_empty:
                self._space = self._space or _Char(" ", span)
        elif self._word and is_joined(char, self._previous):
            self._append_to_word(char, span)
        else:
            is_wide = char_width(char) == 2 and char not in _CLOSING_MARKS
            if self._word and (is_wide or self._is_after_wide(char)):
                self._end_word()
            self._append_to_word(char, span)
        self._previous = char

    def _is_after_wide(self, char: str) -> bool:
        """Whether a line may be broken before ``char``, as the word is one of wide characters."""
        return char_width(self._word[0].text) == 2 and char not in _CLOSING_MARKS

    def _append_to_word(self, char: str, span: Span) -> None:
        width = char_width(char)
        is_too_long = line_width(self._indent) + self._word_width + width > self._width
        if is_too_long and self._word and not is_joined(char, self._previous):
            # Longer than a line: what there is of it is placed.
            self._end_word()
        self._word.append(_Char(char, span))
        self._word_width += width
        gap = 1 if self._space else 0
        if not self._is_empty and self._column + gap + self._word_width > self._width:
            self._break_line()

    def _end_word(self) -> None:
        """Put the word on the line, which has room for it."""
        if not self._word:
            return
        if self._space:
            self._line.append(self._space)
            self._column += 1
        self._line += self._word
        self._column += self._word_width
        self._word, self._word_width, self._space, self._is_empty = [], 0, None, False

    def _break_line(self) -> None:
        self._lines.append(self._as_line(self._line))
        self._first, self._width = self._indent, self._next_width
        self._line, self._column, self._is_empty = [], line_width(self._indent), True
        self._space = None

    def _as_line(self, chars: list[_Char]) -> Line:
        # By the spans that they came in: styles are compared for each of these, not for each char.
        runs = (
            Span("".join(one.text for one in run), span.style, span.link)
            for span, run in _runs(chars)
        )
        return join_spans((*self._first, *runs))


def _runs(chars: list[_Char]) -> Iterator[tuple[Span, list[_Char]]]:
    """Characters that follow each other in one span."""
    start = 0
    for end in range(1, len(chars) + 1):
        span = chars[start].span
        if end == len(chars) or chars[end].span is not span:
            yield span, chars[start:end]
            start = end
