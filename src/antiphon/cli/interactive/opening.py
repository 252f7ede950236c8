"""Opening of an interactive chat: the prompt first, then what answers it.

Little is imported here, so that one can type a moment after the start; the engine and what else a
first answer needs load meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVarTuple

from antiphon.cli.chat_engine import open_session
from antiphon.cli.interactive.first_prompt import greeting
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.settings import Settings

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.cli.chat import ChatCommandOptions
    from antiphon.cli.interactive.chat_loop import ChatLoop, ChatPrompt
    from antiphon.cli.interactive.chat_output import ChatOutput
    from antiphon.cli.interactive.prompt_line import PromptLine

Ts = TypeVarTuple("Ts")


def run_plain(settings: Settings, options: ChatCommandOptions, store: str | None) -> int:
    """Chat by whole lines until the person leaves; returns the exit code."""
    return _run(settings, options, store, _Opening.run_plain)


def run_line(settings: Settings, options: ChatCommandOptions, store: str | None) -> int:
    """Chat at a prompt until the person leaves; returns the exit code."""
    return _run(settings, options, store, _Opening.run_line)


def _run(
    settings: Settings,
    options: ChatCommandOptions,
    store: str | None,
    chat: Callable[[_Opening], Awaitable[str | None]],
) -> int:
    async def run(interrupt: InterruptHandler) -> None:
        opening = _Opening(settings, options, interrupt)
        head = await chat(opening)
        if head and settings.store != "memory:":
            option = f" --store {shlex.quote(store)}" if store else ""
            opening.output.note(f"go on with: {_program_name()} chat --continue{option}")

    run_interruptible(run, _event_loop_factory())
    return 0


class _LogNotes(logging.Handler):
    """Shows what is logged among what else is printed, from whatever thread it comes."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        self._loop.call_soon_threadsafe(self._note, record.getMessage())


class _Opening:
    """What a chat is opened with."""

    output: ChatOutput

    def __init__(
        self, settings: Settings, options: ChatCommandOptions, interrupt: InterruptHandler
    ) -> None:
        self._settings = settings
        self._options = options
        self._interrupt = interrupt
        self._loop: ChatLoop | None = None
        #: What the list of chats is read by, and whether it waits for that.
        self._engine: asyncio.Future[Engine] = asyncio.get_running_loop().create_future()
        self._is_list_shown = asyncio.Event()
        self._picking: asyncio.Future[str | None] | None = None

    async def run_plain(self) -> str | None:
        """Chat by whole lines, and return the head of what was said."""
        from antiphon.cli.interactive.chat_output import (  # loaded on first use
            ChatOutput,
            Terminal,
        )
        from antiphon.cli.interactive.plain_prompt import PlainPrompt  # loaded on first use

        self.output = ChatOutput(Terminal(is_plain=True))
        self.output.note(greeting(None if self._options.continues else self._settings.model))
        return await self._run(PlainPrompt(self.output), None)

    async def run_line(self) -> str | None:
        """Chat at a prompt, which is there before what reads from it."""
        from antiphon.cli.interactive.chat_output import (  # loaded on first use
            ChatOutput,
            Terminal,
        )
        from antiphon.cli.interactive.prompt_line import PromptLine  # loaded on first use

        self.output = ChatOutput(Terminal())
        line = PromptLine(self.output, lambda: self._loop.status if self._loop else "")
        self.output.prompt = line
        try:
            await (self._open_picker() if self._options.picks else line.open_first())
            # The modules of the engine load while the first question is typed.
            for name in ("antiphon.bootstrap", "antiphon.cli.interactive.chat_start"):
                await asyncio.to_thread(import_module, name)
            return await self._run(line, line)
        finally:
            if self._picking is not None:
                # It has the screen, where something failed meanwhile.
                self._picking.cancel()
                await asyncio.wait({self._picking})

    async def _open_picker(self) -> None:
        """Show the list of chats, empty yet; returns when it reads keys."""
        self._picking = asyncio.ensure_future(self._start_picking())
        shown = asyncio.ensure_future(self._is_list_shown.wait())
        await asyncio.wait({self._picking, shown}, return_when="FIRST_COMPLETED")

    async def _start_picking(self) -> str | None:
        from antiphon.cli.interactive.chat_picker import pick_chat  # loaded on first use

        return await pick_chat(self._find_engine, self.output)

    async def _find_engine(self) -> Engine:
        """The engine, as soon as it is open."""
        self._is_list_shown.set()
        return await asyncio.shield(self._engine)

    async def _pick(self, engine: Engine) -> str | None:
        """The newest response of a chat that is chosen from a list."""
        self._engine.set_result(engine)
        chosen = await (self._picking or self._start_picking())
        if chosen is None:
            self.output.note("a new chat")
        return chosen

    def _note(self, text: str) -> None:
        """Print a remark, where the list of chats has the screen once that is gone."""
        if self._picking is None or self._picking.done():
            self.output.note(text)
        else:
            self._picking.add_done_callback(lambda _: self.output.note(text))

    async def _run(self, prompt: ChatPrompt, line: PromptLine | None) -> str | None:
        notes = _LogNotes(self._note)
        logging.getLogger().addHandler(notes)
        try:
            pick = self._pick if self._options.picks else None
            async with open_session(self._settings, self._options, self._note, pick) as opened:
                engine, session, loading = opened
                from antiphon.cli.interactive.chat_start import start_chat  # loaded on first use

                self._loop = await start_chat(
                    engine, session, self.output, prompt, self._interrupt, loading, line
                )
                await self._loop.run()
                return session.head
        finally:
            logging.getLogger().removeHandler(notes)
            await prompt.close()


def _event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it runs: an event costs a third of the processor time."""
    if sys.platform == "win32":
        return None
    import uvloop  # loaded on first use

    class TerminalLoop(uvloop.Loop):
        """Has a terminal that it reads block its writers, as it did before.

        libuv would have whatever is written while the terminal is behind fail, here and in the
        programs that have the same one: a pager, an editor, the shell that is come back to.
        """

        def add_reader(self, fd: Any, callback: Callable[[*Ts], Any], *args: *Ts) -> None:
            super().add_reader(fd, callback, *args)
            if isinstance(fd, int) and os.isatty(fd):
                os.set_blocking(fd, True)

    return TerminalLoop


def _program_name() -> str:
    """This program's name, as a shell in this folder would find it."""
    here = Path(sys.argv[0])
    on_path = shutil.which(here.name)
    if on_path and Path(on_path).resolve() == here.resolve():
        return here.name
    return sys.argv[0]
