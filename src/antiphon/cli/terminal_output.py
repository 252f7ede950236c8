"""What is printed, and how: answers on stdout, everything else on stderr.

Colours and spinners appear on a terminal only (and colours not with NO_COLOR).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status
from rich.text import Text

from antiphon.cli.word_wrap import WordWrap

#: Control characters steer a terminal; what a model says must not.
_CONTROL = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROL[ord("\n")], _CONTROL[ord("\t")]


def stdout() -> Console:
    """A console on the present standard output."""
    return Console(highlight=False, soft_wrap=True)


def stderr() -> Console:
    """A console on the present standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def harmless(text: str) -> str:
    """``text`` without characters that would steer a terminal."""
    return text.translate(_CONTROL)


def columns() -> int | None:
    """The terminal's width; None if standard output goes elsewhere."""
    return stdout().width if sys.stdout.isatty() else None


def say(text: str, wrap: WordWrap | None = None) -> None:
    """A piece of an answer, at once. To a file or pipe it goes exactly as it is."""
    if sys.stdout.isatty():
        text = harmless(text)
        text = wrap.feed(text) if wrap else text
    sys.stdout.write(text)
    sys.stdout.flush()


def note(text: str) -> None:
    """A remark to the person, beside what was asked for."""
    stderr().print(Text(harmless(text), style="dim"))


def complain(message: str) -> None:
    """An error: one line, in red."""
    line = " ".join(harmless(message).split())
    stderr().print(Text.assemble(("error: ", "bold red"), (line, "red")))


@contextmanager
def waiting(text: str = "") -> Iterator[Status]:
    """A spinner on stderr, gone without a trace at the end; nothing if nobody looks."""
    with Status(text, console=stderr(), spinner="dots") as status:
        yield status
