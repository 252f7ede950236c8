"""Prompt line: reads questions and commands, also while an answer streams above it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.document import Document
from prompt_toolkit.filters import Condition, is_done
from prompt_toolkit.formatted_text import ANSI, StyleAndTextTuples, to_formatted_text
from prompt_toolkit.history import History
from prompt_toolkit.input import Input, create_input
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import ConditionalContainer, HSplit, Window
from prompt_toolkit.layout.controls import FormattedTextControl
from prompt_toolkit.layout.dimension import Dimension, to_dimension
from prompt_toolkit.output import Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.first_prompt import BEGIN_MARKED_PASTES, PROMPT_MARK
from antiphon.cli.interactive.lines_above_prompt import LinesAbovePrompt
from antiphon.cli.interactive.slash_commands import SlashCompleter
from antiphon.cli.markdown.styled_line import Line, crop_text, render_spans

#: Seconds after which an Esc is one, and no beginning of another key or of Esc Esc.
_ESCAPE_SECONDS = 0.05
_SECOND_KEY_SECONDS = 0.4
#: What Ctrl-D queues while an answer streams.
LEAVE = "exit"
#: How many of the questions that wait are shown, and how many columns of one.
_MAX_SHOWN_QUEUE = 3
_MAX_QUEUED = 79
_STYLE = Style.from_dict(
    {
        "mark": "bold ansigreen",
        "faint": "dim",
        "status": "dim",
    }
)


class _InterruptedError(Exception):
    """Ctrl-C: a task that ended by ``KeyboardInterrupt`` would end the event loop, too."""


class StoredHistory(History):
    """What was asked before, read from the store: it comes after the prompt is there."""

    def __init__(self) -> None:
        super().__init__()
        self._newest_first: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._offered = asyncio.Event()

    @property
    def is_offered(self) -> bool:
        """Whether the prompt has all of it."""
        return self._offered.is_set()

    async def wait_until_offered(self) -> None:
        await self._offered.wait()

    def withdraw(self) -> None:
        """The prompt begins anew, and will load it again."""
        self._offered.clear()

    @property
    def is_set(self) -> bool:
        return self._newest_first.done()

    def set(self, past_questions: Sequence[str]) -> None:
        self._newest_first.set_result(list(reversed(past_questions)))

    async def load(self) -> AsyncGenerator[str, None]:
        """The newest first: what was asked here, then what is stored."""
        for text in [*self._loaded_strings]:
            yield text
        for text in await asyncio.shield(self._newest_first):
            yield text
        self._offered.set()

    def load_history_strings(self) -> Iterable[str]:
        """Nothing: ``load`` waits for the store."""
        return ()

    def store_string(self, string: str) -> None:
        """Nothing: what is asked is in the store."""


class PromptLine:
    """One line of input, or several, below what is printed.

    ``status`` is the text of the line below it. While an answer streams, ``watch_keys`` reads the
    keys: ``on_stop`` is called for Esc and Ctrl-C, and the first other key opens the prompt, whose
    questions wait in ``queue``, as those do that are asked before anything can answer.
    """

    def __init__(
        self,
        output: ChatOutput,
        status: Callable[[], str],
    ) -> None:
        self._output = output
        self._status = status
        self._input: Input = create_input()
        self._completer = SlashCompleter()
        self._history = StoredHistory()
        self._task: asyncio.Task[str] | None = None
        #: What the prompt that is being opened begins with.
        self._first_text = ""
        self._is_answering = False
        #: The first prompt is there, and what answers it is not.
        self._is_loading = False
        #: What came while the editor had the screen.
        self._waiting_lines: list[Line] = []
        self._editor: asyncio.Task[None] | None = None
        #: Keys that wait for the history; None: none has to.
        self._held_keys: list[KeyPress] | None = None
        #: Entered for an answer; it lasts as long as a prompt that was opened meanwhile.
        self._raw_mode = ExitStack()
        self.mark = "> "
        self.queue: list[str] = []
        self.on_stop: Callable[[], None] = lambda: None
        self.session: PromptSession[str] = PromptSession(
            self._message,
            history=self._history,
            completer=self._completer,
            complete_while_typing=Condition(lambda: self._buffer_text().startswith("/")),
            key_bindings=self._key_bindings(),
            enable_suspend=True,
            tempfile_suffix=".md",
            erase_when_done=True,
            interrupt_exception=_InterruptedError,
            reserve_space_for_menu=4,
            prompt_continuation="  ",
            style=_STYLE,
            input=self._input,
            output=_create_output(),
        )
        self._limit_height()
        self._add_status_line()
        self.session.app.ttimeoutlen = _ESCAPE_SECONDS
        self.session.app.timeoutlen = _SECOND_KEY_SECONDS
        self._above = LinesAbovePrompt(self.session.app, output.printer, output.write)
        self.session.default_buffer.accept_handler = self._accept

    @property
    def is_open(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def has_text(self) -> bool:
        return bool(self._typed_text())

    async def read(self, default: str = "") -> str:
        """The next text; it is not echoed. Raises ``EOFError`` and ``KeyboardInterrupt``."""
        self._set_answering(False)
        task = self.open(default)
        try:
            return await task
        except _InterruptedError:
            raise KeyboardInterrupt from None
        finally:
            self._task = None
            self._raw_mode.close()

    @asynccontextmanager
    async def hold_draft(self) -> AsyncIterator[None]:
        """Within this the prompt is empty, or not there; what was typed in it comes back."""
        await self._wait_for_editor()
        draft = self._typed_text()
        await self.close()
        try:
            yield
        finally:
            if draft:
                self.open(draft)

    @contextmanager
    def watch_keys(self) -> Iterator[None]:
        """Within this an answer streams."""
        self._set_answering(True)
        if self._task is not None:
            yield
            return
        self._raw_mode.enter_context(self._input.raw_mode())
        watching = ExitStack()
        watching.enter_context(self._input.attach(self._read_keys))
        self._detach = watching.close
        self._output.control(BEGIN_MARKED_PASTES)
        # What came with the Enter before.
        self._take_keys(get_typeahead(self._input))
        try:
            yield
        finally:
            self._end_watching()
            # Below an open prompt the mode stays: in any other, Ctrl-C is a signal, which overtakes
            # the keys typed after it, and Ctrl-S stops the terminal.
            if self._task is None:
                self._raw_mode.close()

    def show_above(self, lines: Sequence[Line], unfinished: Line) -> None:
        if self._editor is not None and not self._editor.done():
            self._waiting_lines += lines
            self._above.unfinished = unfinished
            return
        self._above.show(lines, unfinished)

    def _show_waiting_lines(self, _: object) -> None:
        lines, self._waiting_lines = self._waiting_lines, []
        self._above.show(lines, self._above.unfinished)

    def set_model_names(self, names: Iterable[str]) -> None:
        """What is offered behind commands that take a model."""
        self._completer.model_names = tuple(names)

    def set_history(self, past_questions: Sequence[str]) -> None:
        """What the arrow keys and Ctrl-R offer."""
        if self._history.is_set:
            self._history = StoredHistory()
            self.session.history = self.session.default_buffer.history = self._history
            self.session.default_buffer.reset()
        self._history.set(past_questions)

    async def flush(self) -> None:
        """Wait until everything is written."""
        if self._waiting_lines:
            await self._wait_for_editor()

    async def _wait_for_editor(self) -> None:
        if self._editor is not None:
            await asyncio.wait({self._editor})
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Take the prompt off the screen."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, EOFError, _InterruptedError):
                await self._task
            self._task = None
        self._raw_mode.close()
        self._above.end_update()

    def open(self, default: str = "") -> asyncio.Task[str]:
        """Show the prompt, unless it is there; ``default`` is in it where nothing is typed."""
        if self._task is not None:
            if default and not self._buffer_text():
                self.session.default_buffer.document = Document(default)
        else:
            self._output.control(PROMPT_MARK)
            self._history.withdraw()
            self._first_text = default
            start = self.session.prompt_async(default=default, pre_run=self._forget_first_text)
            self._task = asyncio.ensure_future(start)
        return self._task

    def _forget_first_text(self) -> None:
        self._first_text = ""

    def _typed_text(self) -> str:
        """What is in the prompt, or will be as soon as it is there."""
        return (self._first_text or self._buffer_text()) if self.is_open else ""

    async def open_first(self) -> None:
        """Show the prompt over the mark that is there already; returns when it reads keys."""
        self._is_loading = True
        shown = asyncio.Event()

        def handle_render(_: object) -> None:
            shown.set()

        self._output.write("\r")
        self.session.app.after_render += handle_render
        self._task = asyncio.ensure_future(self.session.prompt_async())
        await asyncio.wait(
            {self._task, asyncio.ensure_future(shown.wait())}, return_when="FIRST_COMPLETED"
        )
        self.session.app.after_render -= handle_render

    def _limit_height(self) -> None:
        """Have a long text scroll in half of the screen.

        A prompt as high as the screen would be pushed up with each line that is printed above it.
        """
        window = self.session.layout.current_window
        content_height = window.height

        def height() -> Dimension:
            wanted = to_dimension(content_height)
            rows = self.session.app.output.get_size().rows
            return Dimension(min=wanted.min, max=max(rows // 2, wanted.min))

        window.height = height

    def _add_status_line(self) -> None:
        """A line right below what is typed. prompt_toolkit's is at the end of the screen."""
        control = FormattedTextControl(self._status_text)
        line = Window(control, height=1, dont_extend_height=True, style="class:status")
        container = self.session.layout.container
        assert isinstance(container, HSplit), "of a prompt"
        # Completions of a command are shown in its place.
        is_command = Condition(lambda: self._buffer_text().startswith("/"))
        shows = Condition(lambda: bool(self._status_text())) & ~is_command & ~is_done
        container.children.append(ConditionalContainer(line, shows))

    def _set_answering(self, is_answering: bool) -> None:
        self._is_answering = self._above.has_row = is_answering
        self._is_loading = False
        if not is_answering:
            self._above.unfinished = ()
        if self.is_open:
            self.session.app.invalidate()

    def _buffer_text(self) -> str:
        return self.session.default_buffer.text

    # Keys while an answer streams and no prompt is open.

    def _read_keys(self) -> None:
        self._take_keys(self._input.read_keys())
        if self._input.closed:
            # The terminal is gone, and would say so again and again.
            self._end_watching()
            return
        asyncio.get_running_loop().call_later(_ESCAPE_SECONDS, self._flush_keys)

    def _flush_keys(self) -> None:
        if self._is_answering and self._task is None:
            self._take_keys(self._input.flush_keys())

    def _take_keys(self, keys: Sequence[KeyPress]) -> None:
        typed = [one for one in keys if one.key != Keys.CPRResponse]
        while typed and typed[0].key in {Keys.ControlC, Keys.Escape}:
            typed.pop(0)
            self.on_stop()
        if not typed or all(one.key == Keys.ControlM for one in typed):
            return
        self._end_watching()
        self._above.unfinished = self._output.clear_unfinished()
        store_typeahead(self._input, typed)
        self.open()

    _detach: Callable[[], None] | None = None

    def _end_watching(self) -> None:
        detach, self._detach = self._detach, None
        if detach is not None:
            detach()

    # What the prompt shows.

    def _message(self) -> StyleAndTextTuples:
        shown: StyleAndTextTuples = []
        if self._above.has_row:
            line = render_spans(self._above.unfinished, self._output.terminal.colors)
            shown += [*to_formatted_text(ANSI(line)), ("", "\n")]
        # The last column stays free.
        columns = min(_MAX_QUEUED, self._output.terminal.width - 1)
        for text in self.queue[:_MAX_SHOWN_QUEUE]:
            row = crop_text(" ".join(f"queued: {text}".split()), columns)
            shown.append(("class:faint", f"{row}\n"))
        if more := len(self.queue[_MAX_SHOWN_QUEUE:]):
            shown.append(("class:faint", f"queued: {more} more, /queue lists them\n"))
        return [*shown, ("class:mark", self.mark)]

    def _status_text(self) -> str:
        if self._is_answering:
            return "Esc stops the answer · Enter queues the next question"
        return self._status()

    def _accept(self, buffer: Any) -> bool:
        text = buffer.text
        if self._is_answering or self._is_loading:
            if text.strip():
                self.queue.append(text.strip())
            self._history.withdraw()
            return False
        self.session.app.exit(result=text)
        return True

    async def _wait_for_history(self) -> None:
        """Do what an arrow key does that came before the history did.

        What is typed behind that key is about what it brings.
        """
        buffer, keys = self.session.default_buffer, self.session.app.key_processor
        buffer.load_history_if_not_yet_loaded()
        try:
            await self._history.wait_until_offered()
        finally:
            held, self._held_keys = self._held_keys, None
        buffer.auto_up()
        keys.feed_multiple(held or [])
        keys.process_keys()

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        is_answering = Condition(lambda: self._is_answering)
        is_loading = Condition(lambda: self._is_loading)
        is_empty = Condition(lambda: not self._buffer_text())

        @bindings.add("up", filter=Condition(lambda: not self._history.is_offered))
        def _(event: KeyPressEvent) -> None:
            self._held_keys = []
            event.app.create_background_task(self._wait_for_history())

        @bindings.add(Keys.Any, filter=Condition(lambda: self._held_keys is not None), eager=True)
        def _(event: KeyPressEvent) -> None:
            if self._held_keys is not None:
                self._held_keys += event.key_sequence

        @bindings.add("c-c")
        @bindings.add("<sigint>")
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                self._history.withdraw()
                event.current_buffer.reset()
            elif self._is_answering:
                self.on_stop()
            elif self._is_loading and self.queue:
                event.current_buffer.insert_text(self.queue.pop())
            else:
                event.app.exit(exception=_InterruptedError)

        @bindings.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        @bindings.add("c-x", "c-e")
        def _(event: KeyPressEvent) -> None:
            self._editor = event.current_buffer.open_in_editor()
            self._editor.add_done_callback(self._show_waiting_lines)

        @bindings.add("escape", filter=is_answering)
        def _(_: KeyPressEvent) -> None:
            self.on_stop()

        @bindings.add("c-d", filter=is_empty & (is_answering | is_loading))
        def _(_: KeyPressEvent) -> None:
            self.queue.append(LEAVE)

        @bindings.add("escape", "escape", filter=is_empty & ~is_answering)
        def _(event: KeyPressEvent) -> None:
            event.app.exit(result="/edit")

        return bindings


def _create_output() -> Output:
    """The terminal. It is not asked where its cursor is: the answer would be one more drawing."""
    output = create_output()
    if isinstance(output, Vt100_Output):
        output.enable_cpr = False
    return output
