"""Plain prompt: lines from a terminal without moving its cursor, as a screen reader wants them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from antiphon.cli.interactive.chat_output import ChatOutput

_MAX_LINE = 65536


class PlainPrompt:
    """The terminal itself echoes and edits the line. A backslash at its end goes on with it."""

    def __init__(self, output: ChatOutput) -> None:
        self._output = output
        self._pending = b""
        self.mark = "> "
        self.queue: list[str] = []
        self.on_stop: Callable[[], None] = lambda: None

    @property
    def has_text(self) -> bool:
        return False

    async def read(self, default: str = "") -> str:
        """The next text. Raises ``EOFError``."""
        if default:
            self._output.note(f"Enter alone takes: {default}")
        self._output.write(self.mark)
        text = await self._read_line()
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{await self._read_line()}"
        return text or default

    @asynccontextmanager
    async def hold_draft(self) -> AsyncIterator[None]:
        """Nothing: a line is whole when it is read."""
        yield

    @contextmanager
    def watch_keys(self) -> Iterator[None]:
        """Nothing: lines wait in the terminal."""
        yield

    async def flush(self) -> None:
        """Nothing waits to be written."""

    async def close(self) -> None:
        """Nothing is open."""

    async def _read_line(self) -> str:
        while b"\n" not in self._pending:
            data = await self._read_available()
            if not data:
                raise EOFError
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode(errors="replace")

    @staticmethod
    async def _read_available() -> bytes:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        number = sys.stdin.fileno()
        loop.add_reader(number, _set, ready)
        try:
            await ready
        finally:
            loop.remove_reader(number)
        return os.read(number, _MAX_LINE)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
