"""Chat output: everything that an interactive chat prints, above the prompt where one is open."""

from __future__ import annotations

import base64
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style

from antiphon.cli.markdown.line_printer import LinePrinter
from antiphon.cli.markdown.styled_line import Line, Span, line_width, make_safe

if TYPE_CHECKING:
    from antiphon.cli.markdown.markdown_stream import MarkdownStream

FAINT = Style(dim=True)
_ERROR = Style(color="red")
_ERROR_WORD = Style(color="red", bold=True)
_QUESTION_MARK = Style(color="green", bold=True)
_QUESTION = Style(bold=True)
#: Wide enough for no line to be broken: a terminal breaks it, or a reader of the screen.
_UNBROKEN = 1_000_000
_NARROW_INDENT = 4
_NOTHING = Span("")
_COLORS = {"standard": ColorSystem.STANDARD, "256": ColorSystem.EIGHT_BIT}


class OpenPrompt(Protocol):
    """A prompt below the output."""

    @property
    def is_open(self) -> bool: ...

    def show_above(self, lines: Sequence[Line], unfinished: Line) -> None:
        """Print lines above the prompt, and show the unfinished one right above it."""
        ...


class Terminal:
    """What standard output is: its width and colours, and whether its cursor may be moved.

    ``is_plain``: for a screen reader, or a terminal that cannot do more.
    """

    def __init__(self, *, is_plain: bool = False) -> None:
        self.is_plain = is_plain
        self.colors = _color_system()

    @property
    def width(self) -> int:
        return shutil.get_terminal_size().columns


class ChatOutput:
    """Prints lines, and an answer while it streams."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.prompt: OpenPrompt | None = None
        self.printer = LinePrinter(
            terminal.width, terminal.colors, moves_cursor=not terminal.is_plain
        )
        self._is_after_blank = True
        self._had_prompt = False

    @property
    def has_prompt(self) -> bool:
        """Whether a prompt is open below what is printed."""
        return self.prompt is not None and self.prompt.is_open

    def note(self, text: str) -> None:
        """A dim remark, broken between words."""
        for line in make_safe(text).split("\n"):
            self.lines(self.broken(Span(line, FAINT)))

    def entry(self, label: str, text: str) -> None:
        """A label, padded to its column, and a text beside that column, or below the label."""
        if self.terminal.width < 3 * len(label):
            self.lines([(Span(label.rstrip()),)])
            label = " " * _NARROW_INDENT
        line = make_safe(text).replace("\n", " ")
        self.lines(self.broken(Span(line), Span(label), " " * len(label)))

    def broken(self, span: Span, first: Span = _NOTHING, indent: str = "") -> list[Line]:
        """A line behind ``first``, broken between words where the terminal is too narrow for it.

        What has no words, as an address, is left to the terminal: it is one line for who copies it.
        """
        if self.terminal.is_plain or " " not in span.text.strip():
            return [(first, span)]
        # The last column stays free: terminals differ in what they do after it.
        width = self.terminal.width - 1
        if line_width((first, span)) <= width:
            return [(first, span)]
        from antiphon.cli.markdown.line_wrapper import LineWrapper  # loaded on first use

        text = span.text.lstrip(" ")
        inset = " " * min(len(span.text) - len(text), width // 2)
        wrapper = LineWrapper(width, (first, Span(inset)), (Span(indent + inset),))
        wrapper.add([Span(text, span.style)])
        wrapper.end_line()
        return wrapper.take_lines()

    def error(self, message: str) -> None:
        line = " ".join(make_safe(message).split())
        self.lines(self.broken(Span(line, _ERROR), Span("error: ", _ERROR_WORD)))

    def question(self, text: str) -> None:
        """What the user asked, as it stays above its answer."""
        first, *others = make_safe(text).split("\n")
        self.lines(self.broken(Span(first, _QUESTION), Span("> ", _QUESTION_MARK), "  "))
        for line in others:
            self.lines(self.broken(Span(line, _QUESTION), Span("  "), "  "))

    def text(self, text: str) -> None:
        """Lines, of which those that are too long go on with an indent."""
        for line in make_safe(text).split("\n"):
            self.lines(self.broken(Span(line), indent=" " * _NARROW_INDENT))

    def markdown(self, text: str) -> None:
        """A text that is complete."""
        stream = self.new_stream()
        stream.feed(text)
        stream.finish()
        self.lines(stream.take_lines())

    def lines(self, lines: Sequence[Line]) -> None:
        self.update(lines, ())

    def separate(self) -> None:
        """An empty line, unless there is one."""
        if not self._is_after_blank:
            self.lines([()])

    def update(self, lines: Sequence[Line], unfinished: Line) -> None:
        """Print lines, and show the one after them as it stands."""
        if lines:
            self._is_after_blank = not lines[-1]
        if self.prompt is not None and self.has_prompt:
            self._had_prompt = True
            self.prompt.show_above(lines, unfinished)
            return
        if self._had_prompt:
            # It took the unfinished line along.
            self._had_prompt = False
            self.printer.assume(())
        resized = ""
        if (width := self.terminal.width) != self.printer.width and not self.terminal.is_plain:
            resized = self.printer.set_width(width)
        self.write(resized + self.printer.update(lines, unfinished))

    def clear_unfinished(self) -> Line:
        """Take the unfinished line off the screen, and return it for the prompt to show."""
        line = self.printer.shown
        self.write(self.printer.clear_unfinished())
        return line

    def new_stream(self) -> MarkdownStream:
        """A stream for one answer."""
        from antiphon.cli.markdown.markdown_stream import MarkdownStream  # loaded on first use

        shows_marks = self.terminal.colors is None or self.terminal.is_plain
        if self.terminal.is_plain:
            return MarkdownStream(_UNBROKEN, shows_marks=shows_marks, is_wrapped=False)
        return MarkdownStream(self.terminal.width, shows_marks=shows_marks)

    def fit(self, stream: MarkdownStream) -> None:
        """Have what comes next fill the lines of the terminal as wide as it is now."""
        if not self.terminal.is_plain:
            stream.set_width(self.terminal.width)

    def control(self, sequence: str) -> None:
        """Send the terminal a sequence that shows nothing; not to a plain one."""
        if not self.terminal.is_plain:
            self.write(sequence)

    def copy(self, text: str) -> None:
        """Have the terminal copy a text, also over SSH: OSC 52."""
        self.control(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x1b\\")

    @staticmethod
    def write(text: str) -> None:
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()


def _color_system() -> ColorSystem | None:
    """The colours of standard output; None: none, because of NO_COLOR or as it is no terminal."""
    console = Console()
    if console.no_color or not console.is_terminal or console.color_system is None:
        return None
    return _COLORS.get(console.color_system, ColorSystem.TRUECOLOR)
