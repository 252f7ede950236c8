"""Answer view: prints a turn's events as they come: words as Markdown, calls and their results."""

from __future__ import annotations

from collections.abc import Callable

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

    def wait(self) -> None:
        """Say that the model is at work."""
        if not self._output.terminal.is_plain and self._stream is None:
            self._output.update((), (Span(f"… {self._waiting_note()}", FAINT),))

    def show(self, event: Event) -> None:
        match event:
            case TextDelta(text=text) | RefusalDelta(text=text):
                self._write(text)
            case ReasoningDelta() | ItemAdded():
                if self._stream is None:
                    self.wait()
            case ItemDone(item=FunctionCall() as call):
                self._print_apart([_call_line(call)])
            case ItemDone(item=FunctionCallOutput(output=output)):
                self._print_apart([_result_line(text_of(output))], is_tight=True)
            case ItemDone(item=Compaction()):
                self._print_apart([(Span("earlier turns were summarized", FAINT),)])
            case _:
                pass

    def show_item(self, index: int, item: Item) -> None:
        """Show an item that is whole."""
        if isinstance(item, FunctionCall | FunctionCallOutput | Compaction):
            self.show(ItemDone(index, item))
        elif isinstance(item, Message) and item.role == "assistant":
            self._end_text()
            self.show(TextDelta(index, text_of(item.content)))

    def end(self) -> None:
        """The turn is over."""
        self._end_text()
        self._output.update((), ())

    def _write(self, text: str) -> None:
        if self._stream is None:
            if self._has_printed:
                self._output.lines([()])
            self._stream = self._output.new_stream()
            if self._is_json:
                self._stream.feed(_JSON_FENCE)
        self._has_printed = True
        self._output.fit(self._stream)
        self._stream.feed(text)
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
        self._has_printed = True

    def _end_text(self) -> None:
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


def _call_line(call: FunctionCall) -> Line:
    return (Span("● ", _CALL), Span(call_text(call)))


def _result_line(text: str) -> Line:
    return (Span("  └ ", FAINT), Span(shorten(make_safe(text), _MAX_SHOWN), FAINT))
