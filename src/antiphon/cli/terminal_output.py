"""What is printed, and how: answers on stdout, everything else on stderr.

Colours and spinners appear on a terminal only (and colours not with NO_COLOR).

Breaks lines between words while the words are still coming. No I/O.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.cells import cell_len
from rich.console import Console
from rich.status import Status
from rich.text import Text

#: Back by so many columns, and clear the rest of the line.
_ERASE_BACK = "\x1b[{}D\x1b[K"


class WordWrapper:
    """Text for a terminal of ``columns``, piece by piece, each shown at once.

    A word that turns out not to fit is taken back and begins the next line; only a
    word longer than a line is broken. The last column stays free: terminals differ in
    what they do after it.
    """

    def __init__(self, columns: int) -> None:
        self._width = max(columns - 1, 1)
        self._column = 0
        self._word = ""

    def feed(self, text: str) -> str:
        """What to write for ``text``."""
        return "".join(map(self._feed_char, text))

    def _feed_char(self, char: str) -> str:
        if char == "\n":
            self._column, self._word = 0, ""
            return char
        if char == "\t":
            char = " "
        cells = cell_len(char)
        if self._column + cells > self._width:
            return self._overflow(char, cells)
        self._column += cells
        self._word = "" if char == " " else self._word + char
        return char

    def _overflow(self, char: str, cells: int) -> str:
        """A new line for what has no room left on this one."""
        word = "" if char == " " else self._word
        taken = cell_len(word)
        if char == " ":
            # The line's end stands for the space.
            self._column, self._word = 0, ""
            return "\n"
        if taken == self._column:
            # The word is the whole line.
            word = taken_back = ""
        else:
            taken_back = _ERASE_BACK.format(taken) if taken else ""
        self._word = word + char
        self._column = cell_len(word) + cells
        return f"{taken_back}\n{word}{char}"


#: Control characters steer a terminal; what a model says must not.
_CONTROL_CHARS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROL_CHARS[ord("\n")], _CONTROL_CHARS[ord("\t")]


def stdout_console() -> Console:
    """A console on the present standard output."""
    return Console(highlight=False, soft_wrap=True)


def stderr_console() -> Console:
    """A console on the present standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def strip_control_chars(text: str) -> str:
    """``text`` without characters that would steer a terminal."""
    return text.translate(_CONTROL_CHARS)


def terminal_width() -> int | None:
    """The terminal's width; None if standard output goes elsewhere."""
    return stdout_console().width if sys.stdout.isatty() else None


def print_output(text: str, wrap: WordWrapper | None = None) -> None:
    """A piece of an answer, at once. To a file or pipe it goes exactly as it is."""
    if sys.stdout.isatty():
        text = strip_control_chars(text)
        text = wrap.feed(text) if wrap else text
    sys.stdout.write(text)
    sys.stdout.flush()


def print_note(text: str) -> None:
    """A remark to the person, beside what was asked for."""
    stderr_console().print(Text(strip_control_chars(text), style="dim"))


def print_error(message: str) -> None:
    """An error: one line, in red."""
    line = " ".join(strip_control_chars(message).split())
    stderr_console().print(Text.assemble(("error: ", "bold red"), (line, "red")))


@contextmanager
def show_spinner(text: str = "") -> Iterator[Status]:
    """A spinner on stderr, gone without a trace at the end; nothing if nobody looks."""
    with Status(text, console=stderr_console(), spinner="dots") as status:
        yield status
