"""Terminal output: answers and tables to stdout, notes, errors and spinners to stderr.

Colours and spinners appear on a terminal only (and colours not with NO_COLOR). Control
characters of a model's or a caller's text are stripped before a terminal sees them. rich is
loaded with the first thing that needs it: ``antiphon --help`` does without.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

    from antiphon.core.turns import Response
    from antiphon.turn.chat_protocols import ChatRecord

#: Every control character but newline and tab: they would steer the terminal.
_CONTROL_CHARS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROL_CHARS[ord("\n")], _CONTROL_CHARS[ord("\t")]
#: The least width of a column that gives way to the others.
_MIN_CROPPED = 8


class Column(msgspec.Struct, frozen=True):
    """A table's column: ``is_wrapped`` folds its text, ``is_cropped`` cuts it with an ellipsis."""

    title: str
    is_wrapped: bool = False
    is_cropped: bool = False
    is_number: bool = False


def stdout_console() -> Console:
    """A console on the present standard output."""
    from rich.console import Console  # loaded on first use

    return Console(highlight=False, soft_wrap=True)


def stderr_console() -> Console:
    """A console on the present standard error."""
    from rich.console import Console  # loaded on first use

    return Console(stderr=True, highlight=False, soft_wrap=True)


def strip_control_chars(text: str) -> str:
    """Sanitize ``text``: drop the characters that would steer a terminal."""
    return text.translate(_CONTROL_CHARS)


def print_output(text: str) -> None:
    """Write a text to stdout at once. To a file or pipe it goes byte for byte."""
    if sys.stdout.isatty():
        text = strip_control_chars(text)
    sys.stdout.write(text)
    sys.stdout.flush()


def print_lines(lines: Sequence[str]) -> None:
    """Write lines to stdout; at a terminal each is cut off at its width."""
    if not sys.stdout.isatty():
        print_output("".join(f"{line}\n" for line in lines))
        return
    from rich.text import Text  # loaded on first use

    text = Text(strip_control_chars("\n".join(lines)))
    stdout_console().print(text, no_wrap=True, overflow="ellipsis", soft_wrap=False)


def print_note(text: str) -> None:
    """Write a dim remark to stderr."""
    from rich.text import Text  # loaded on first use

    stderr_console().print(Text(strip_control_chars(text), style="dim"))


def print_error(message: str) -> None:
    """Write an error to stderr: one line, in red."""
    from rich.text import Text  # loaded on first use

    line = " ".join(strip_control_chars(message).split())
    stderr_console().print(Text.assemble(("error: ", "bold red"), (line, "red")))


def print_json(value: object) -> None:
    """Write ``value`` to stdout as indented JSON."""
    print_output(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_tsv(rows: Sequence[Sequence[str]]) -> None:
    """Write ``rows`` to stdout as tab-separated values, for other programs."""
    for row in rows:
        print_output("\t".join(row) + "\n")


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Write ``rows`` to a terminal as a table that fits its width; fixed columns are never cut.

    Where it has no room for them, each row takes two lines: its first cell, and what follows.
    """
    from rich.table import Table  # loaded on first use
    from rich.text import Text  # loaded on first use

    console = stdout_console()
    if _min_width(columns, rows) > console.width:
        for first, *others in rows:
            console.print(Text(strip_control_chars(first)))
            rest = "  ".join(cell.strip() for cell in others if cell.strip())
            text = Text(f"  {strip_control_chars(rest)}", style="dim")
            console.print(text, no_wrap=True, overflow="ellipsis", soft_wrap=False)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(
            column.title,
            justify="right" if column.is_number else "left",
            # Only a column that may wrap gives way to the others.
            no_wrap=not (column.is_wrapped or column.is_cropped),
        )
    for row in rows:
        cells = zip(columns, row, strict=True)
        table.add_row(
            *(
                Text(
                    strip_control_chars(cell),
                    no_wrap=column.is_cropped,
                    overflow="ellipsis" if column.is_cropped else "fold",
                )
                for column, cell in cells
            )
        )
    console.print(table, soft_wrap=False)


def _min_width(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """The width of a table whose wrapped and cropped columns are no wider than they have to be."""
    widths = (
        max(len(column.title), *(len(row[index]) for row in rows))
        if rows and not (column.is_wrapped or column.is_cropped)
        else _MIN_CROPPED
        for index, column in enumerate(columns)
    )
    return sum(width + 2 for width in widths) - 2


@contextmanager
def show_spinner(text: str = "") -> Iterator[Status]:
    """Show a spinner on stderr, erased at the end; nothing where stderr is no terminal."""
    from rich.status import Status  # loaded on first use

    with Status(text, console=stderr_console(), spinner="dots") as status:
        yield status


def format_time(seconds: float, *, short: bool = False) -> str:
    """A Unix time as local time; ``short`` leaves out the year and the zone."""
    moment = datetime.fromtimestamp(seconds).astimezone()
    return moment.strftime("%b %d %H:%M") if short else moment.isoformat(" ", "seconds")


def format_ago(seconds: float) -> str:
    """A Unix time in words: ``2 h ago``, or its date where that is long ago."""
    ago = max(0.0, time.time() - seconds)
    for size, name in ((60, "s"), (60, "min"), (24, "h"), (30, "days")):
        if ago < size:
            number = f"{ago:.0f}"
            unit = "day" if (number, name) == ("1", "days") else name
            return "now" if name == "s" else f"{number} {unit} ago"
        ago /= size
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d")


def chat_mark(chat: ChatRecord) -> str:
    """What stands before a chat's title: it runs, it waits for a person, it is pinned."""
    return {"running": "…", "waiting": "?"}.get(chat.status, "*" if chat.is_pinned else " ")


def status_note(response: Response) -> str | None:
    """A note on an answer that was stopped, cut off or failed; None for a whole one."""
    if response.status == "cancelled":
        return "stopped; what arrived is kept" if response.output else "stopped"
    if response.end is not None and response.end.reason == "max_output_tokens":
        return "cut off: the answer reached its maximum of tokens"
    if response.status == "incomplete":
        return "the answer is incomplete"
    if response.end is not None and response.end.error is not None:
        return f"failed: {response.end.error.message}"
    return None
