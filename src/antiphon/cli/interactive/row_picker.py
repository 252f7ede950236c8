"""Row picker: a full screen to choose a row from, by keys and by what is typed.

On the alternate screen, which leaves nothing behind. On a plain terminal: numbered rows.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec
from prompt_toolkit import Application
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.layout import HSplit, Layout, Window
from prompt_toolkit.layout.controls import BufferControl, FormattedTextControl
from prompt_toolkit.layout.processors import BeforeInput
from prompt_toolkit.styles import Style

from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.plain_prompt import PlainPrompt
from antiphon.cli.markdown.styled_line import crop_text, make_safe
from antiphon.errors import AntiphonError

_STYLE = Style.from_dict({"chosen": "reverse", "faint": "dim", "error": "ansired"})
_MAX_NUMBERED = 30
#: What is not the list: the query, two rows of detail, the help.
_OTHER_ROWS = 4
_HELP = ("Enter chooses", "Esc leaves", "type to search", "↑↓ PgUp PgDn Home End")


class Row(msgspec.Struct, frozen=True):
    """A row: ``detail`` is shown below the list while it is the chosen one."""

    id: str
    label: str
    detail: str = ""


#: The rows for what is typed.
Finder: TypeAlias = Callable[[str], Awaitable[list[Row]]]
#: A row with its words, which are read when it comes into view.
Loader: TypeAlias = Callable[[Row], Awaitable[Row]]


async def pick_row(
    output: ChatOutput,
    title: str,
    find: Finder,
    *,
    load: Loader | None = None,
    chosen: str | None = None,
    limit: int | None = None,
) -> str | None:
    """The id of the row that was chosen, ``chosen`` at first; None: none was.

    ``limit``: so many rows are found at most.
    """
    if output.terminal.is_plain:
        rows = await find("")
        # The newest are at the end of a tree.
        shown = rows[-_MAX_NUMBERED:] if load else rows[:_MAX_NUMBERED]
        return await _pick_number(output, [await load(row) for row in shown] if load else shown)
    return await _RowPicker(title, find, load, chosen, limit).application.run_async()


async def _pick_number(output: ChatOutput, rows: list[Row]) -> str | None:
    prompt = PlainPrompt(output)
    for number, row in enumerate(rows, 1):
        output.text(f"{number} {row.label}")
    prompt.mark = "number (Enter: none): "
    try:
        answer = (await prompt.read()).strip()
    except EOFError:
        return None
    is_number = answer.isdecimal() and 0 < int(answer) <= len(rows)
    return rows[int(answer) - 1].id if is_number else None


class _RowPicker:
    def __init__(
        self, title: str, find: Finder, load: Loader | None, chosen: str | None, limit: int | None
    ) -> None:
        self._find = find
        self._limit = limit
        self._rows: list[Row] = []
        self._load = load
        self._loaded: dict[str, Row] = {}
        self._loading: asyncio.Task[None] | None = None
        self._at = 0
        self._top = 0
        self._first_chosen = chosen
        #: Why there are no rows, where the store did not give them.
        self._error = ""
        self._searching: asyncio.Task[None] | None = None
        self._choosing: asyncio.Task[None] | None = None
        self._held_keys: list[KeyPress] = []
        self._buffer = Buffer(multiline=False, on_text_changed=lambda _: self._search())
        self._list = Window(FormattedTextControl(self._list_text), always_hide_cursor=True)
        query = BufferControl(self._buffer, input_processors=[BeforeInput(f"{title}: ")])
        self.application: Application[str | None] = Application(
            layout=Layout(
                HSplit(
                    [
                        Window(query, height=1),
                        self._list,
                        Window(FormattedTextControl(self._detail), height=2, wrap_lines=True),
                        Window(FormattedTextControl(_help_text), height=1),
                    ]
                ),
                focused_element=query,
            ),
            key_bindings=self._key_bindings(),
            full_screen=True,
            style=_STYLE,
        )
        self.application.ttimeoutlen = 0.05
        self.application.after_render += self._handle_render

    def _handle_render(self, _: object) -> None:
        """Look for the first rows once one can type: that may wait for the store."""
        if self._searching is None:
            self._search()

    def _search(self) -> None:
        if self._searching is not None:
            self._searching.cancel()
        self._searching = asyncio.ensure_future(self._find_rows(self._buffer.text))

    async def _find_rows(self, query: str) -> None:
        self._at, self._error = 0, ""
        try:
            self._rows = await self._find(query)
        except AntiphonError as error:
            self._rows, self._error = [], error.message
        if not query:
            ids = [row.id for row in self._rows]
            self._at = ids.index(self._first_chosen) if self._first_chosen in ids else 0
        self.application.invalidate()

    def _height(self) -> int:
        info = self._list.render_info
        return info.window_height if info is not None else _terminal_rows() - _OTHER_ROWS

    def _list_text(self) -> StyleAndTextTuples:
        """The rows that the window has room for: thousands cost no more than those."""
        height = self._height()
        self._top = min(max(self._top, self._at - height + 1), self._at)
        shown: StyleAndTextTuples = []
        rows = self._rows[self._top : self._top + height]
        self._load_words(rows)
        columns = shutil.get_terminal_size().columns
        for index, row in enumerate(rows, self._top):
            style = "class:chosen" if index == self._at else ""
            label = self._loaded.get(row.id, row).label
            shown.append((style, f"{crop_text(label, columns)}\n"))
        if self._error:
            return [("class:error", f"error: {make_safe(self._error)}")]
        has_searched = self._searching is not None and self._searching.done()
        return shown or [("class:faint", "nothing was found" if has_searched else "…")]

    def _load_words(self, rows: list[Row]) -> None:
        """Read the words of rows that came into view."""
        missing = [row for row in rows if row.id not in self._loaded]
        if self._load is None or not missing or (self._loading and not self._loading.done()):
            return

        async def read(load: Loader) -> None:
            try:
                for row in missing:
                    self._loaded[row.id] = await load(row)
            except AntiphonError as error:
                self._rows, self._at, self._error = [], 0, error.message
            self.application.invalidate()

        self._loading = asyncio.ensure_future(read(self._load))

    def _detail(self) -> StyleAndTextTuples:
        if not self._rows:
            return []
        row, count = self._rows[self._at], len(self._rows)
        detail = self._loaded.get(row.id, row).detail
        of = f"{count}, or more" if count == self._limit else f"{count}"
        return [("class:faint", f"{self._at + 1} of {of}  {make_safe(detail)}")]

    def _move(self, rows: int) -> None:
        self._at = max(0, min(len(self._rows) - 1, self._at + rows))

    async def _exit_with_chosen(self) -> None:
        """Leave with the chosen row of what was typed, which may be searched for yet."""
        while self._searching is not None and not self._searching.done():
            await asyncio.wait({self._searching})
        future = self.application.future
        if future is not None and not future.done():
            self.application.exit(result=self._rows[self._at].id if self._rows else None)
            # What was typed behind it is for what comes next.
            self.application.key_processor.feed_multiple(self._held_keys)

    def _key_bindings(self) -> KeyBindings:
        bindings = KeyBindings()
        steps: dict[str, Callable[[], int]] = {
            "up": lambda: -1,
            "down": lambda: 1,
            "pageup": lambda: -self._height(),
            "pagedown": self._height,
            "home": lambda: -len(self._rows),
            "end": lambda: len(self._rows),
        }
        for key, rows in steps.items():
            bindings.add(key)(lambda _, rows=rows: self._move(rows()))

        @bindings.add("enter")
        def _(_: KeyPressEvent) -> None:
            self._choosing = asyncio.ensure_future(self._exit_with_chosen())

        @bindings.add(Keys.Any, filter=Condition(lambda: self._choosing is not None), eager=True)
        def _(event: KeyPressEvent) -> None:
            self._held_keys += event.key_sequence

        @bindings.add("escape", eager=True)
        @bindings.add("c-c", eager=True)
        @bindings.add("c-d", eager=True)
        def _(event: KeyPressEvent) -> None:
            event.app.exit(result=None)

        return bindings


def _help_text() -> StyleAndTextTuples:
    """What of the help the row has room for."""
    shown = _HELP[0]
    for part in _HELP[1:]:
        if len(shown) + len(part) + 3 <= shutil.get_terminal_size().columns:
            shown += f" · {part}"
    return [("class:faint", shown)]


def _terminal_rows() -> int:
    return max(shutil.get_terminal_size().lines, _OTHER_ROWS + 1)
