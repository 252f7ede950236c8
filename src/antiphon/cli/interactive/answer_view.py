"""Answer view: prints a turn's events as they come: words as Markdown, calls and their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from rich.style import Style

from antiphon.cli.interactive.chat_output import FAINT, ChatOutput
from antiphon.cli.markdown.markdown_stream import MarkdownStream
from antiphon.cli.markdown.styled_line import Line, Span, make_safe
from antiphon.core.events import (
    Event,
    ItemAdded,
    ItemDone,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
)
from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    shorten,
    text_of,
)
from antiphon.core.turns import Options, Response

_JSON_FENCE = "```json\n"
_CALL = Style(color="blue")
#: Characters of a call's arguments and of its result that are shown.
_MAX_SHOWN = 400
#: The least time between two looks of a growing answer, in seconds: less than words gather for.
_FRAME_SECONDS = 0.04


class AnswerView:
    """Prints one turn. ``waiting_note`` is shown until its first words.

    ``is_json``: its words are no Markdown.
    """

    def __init__(
        self, output: ChatOutput, waiting_note: Callable[[], str], *, is_json: bool = False
    ) -> None:
        self._output = output
        self._waiting_note = waiting_note
        self._stream: MarkdownStream | None = None
        self._has_printed = False
        self._is_json = is_json
        self._shown_at = 0.0
        #: What stands there until the first words.
        self._shown_note = ""
        #: Words that came and that the stream has not taken.
        self._unread = ""

    def pause(self) -> float:
        """Seconds until more words are worth showing; the first ones are at once."""
        return self._shown_at + _FRAME_SECONDS - time.monotonic()

    def wait(self) -> None:
        """Say that the model is at work."""
        note = self._waiting_note()
        has_text = self._stream is not None or self._unread
        if self._output.terminal.is_plain or has_text or note == self._shown_note:
            return
        self._shown_note = note
        if len(note) + 2 >= self._output.terminal.width:
            note = note.partition(": ")[0]
        self._output.update((), (Span(f"… {note}", FAINT),))

    def show(self, events: Iterable[Event]) -> None:
        """Show what came together."""
        for event in events:
            self._add(event)
        self._show_text()

    def _add(self, event: Event) -> None:
        match event:
            case TextDelta(text=text) | RefusalDelta(text=text):
                self._unread += text
            case ReasoningDelta() | ItemAdded():
                self.wait()
            case ItemDone(item=FunctionCall() as call):
                self._print_apart(
                    self._output.broken(Span(call_text(call)), Span("● ", _CALL), "  ")
                )
            case ItemDone(item=FunctionCallOutput(output=output)):
                result = Span(shorten(make_safe(text_of(output)), _MAX_SHOWN), FAINT)
                lines = self._output.broken(result, Span("  └ ", FAINT), "    ")
                self._print_apart(lines, is_tight=True)
            case ItemDone(item=Compaction()):
                self._print_apart([(Span("earlier turns were summarized", FAINT),)])
            case _:
                pass

    def show_item(self, index: int, item: Item) -> None:
        """Show an item that is whole."""
        if isinstance(item, FunctionCall | FunctionCallOutput | Compaction):
            self.show([ItemDone(index, item)])
        elif isinstance(item, Message) and item.role == "assistant":
            self._end_text()
            self.show([TextDelta(index, text_of(item.content))])

    def end(self) -> None:
        """The turn is over."""
        self._end_text()
        self._output.update((), ())

    def _read_text(self) -> None:
        """Have the stream take what came since."""
        if not self._unread:
            return
        if self._stream is None:
            if self._has_printed:
                self._output.lines([()])
            self._stream = self._output.new_stream()
            if self._is_json:
                self._stream.feed(_JSON_FENCE)
        self._has_printed = True
        self._output.fit(self._stream)
        self._stream.feed(self._unread)
        self._unread = ""

    def _show_text(self) -> None:
        self._read_text()
        if self._stream is None:
            return
        self._shown_at = time.monotonic()
        lines = self._stream.take_lines()
        if self._output.terminal.is_plain:
            self._output.lines(lines)
            return
        self._output.update(lines, self._stream.unfinished())

    def _print_apart(self, lines: list[Line], *, is_tight: bool = False) -> None:
        self._end_text()
        if self._has_printed and not is_tight:
            lines = [(), *lines]
        self._output.lines(lines)
        self._has_printed, self._shown_note = True, ""

    def _end_text(self) -> None:
        self._read_text()
        if self._stream is not None:
            self._stream.finish()
            self._output.lines(self._stream.take_lines())
            self._stream = None


def print_turn(output: ChatOutput, turn: Response, question: str) -> None:
    """Print a stored turn as it looked when it was new."""
    if question:
        output.question(question)
    view = AnswerView(output, str, is_json=has_schema(turn.header.options))
    for index, item in enumerate(turn.output):
        view.show_item(index, item)
    view.end()


def has_schema(options: Options) -> bool:
    """Whether answers are JSON."""
    return options.text_format is not None and options.text_format["type"] != "text"


def call_text(call: FunctionCall) -> str:
    """A call on one line."""
    return shorten(make_safe(f"{call.name}({call.arguments})"), _MAX_SHOWN)
