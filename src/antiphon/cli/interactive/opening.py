"""Opening of an interactive chat: the prompt first, then what answers it.

Little is imported here, so that one can type a moment after the start; the engine and what else a
first answer needs load meanwhile.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon import __version__
from antiphon.cli.chat import ChatCommandOptions, open_session
from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.plain_prompt import PlainPrompt
from antiphon.cli.interactive.prompt_line import PromptLine, hold_typed_keys
from antiphon.cli.interrupt import InterruptHandler
from antiphon.settings import Settings

if TYPE_CHECKING:
    from antiphon.cli.interactive.chat_loop import ChatLoop, ChatPrompt


async def run_interactive(
    settings: Settings, options: ChatCommandOptions, store: str | None, interrupt: InterruptHandler
) -> None:
    """Chat until the person leaves."""
    output = ChatOutput(options.terminal())
    opening = _Opening(settings, options, output, interrupt)
    if output.terminal.is_plain:
        head = await opening.run(PlainPrompt(output), None)
    else:
        with hold_typed_keys():
            line = PromptLine(output, lambda: opening.status)
            output.prompt = line
            head = await opening.run(line, line)
    if head and settings.store != "memory:":
        option = f" --store {shlex.quote(store)}" if store else ""
        output.note(f"go on with: {_program_name()} chat --continue{option}")


class _Opening:
    """What a chat is opened with."""

    def __init__(
        self,
        settings: Settings,
        options: ChatCommandOptions,
        output: ChatOutput,
        interrupt: InterruptHandler,
    ) -> None:
        self._settings = settings
        self._options = options
        self._output = output
        self._interrupt = interrupt
        self._loop: ChatLoop | None = None

    @property
    def status(self) -> str:
        return self._loop.status if self._loop is not None else ""

    async def run(self, prompt: ChatPrompt, line: PromptLine | None) -> str | None:
        """Chat, and return the head of what was said."""
        options = self._options
        continues = options.picks or options.newest or options.response_id is not None
        model = f", {self._settings.model}" if self._settings.model and not continues else ""
        if not continues:
            self._greet(model)
        if line is not None and not continues:
            # One can type at once: the engine's modules load meanwhile.
            line.open()
            for name in ("antiphon.bootstrap", "antiphon.cli.interactive.chat_start"):
                await asyncio.to_thread(import_module, name)
        try:
            async with open_session(self._settings, options) as (engine, session, loading):
                if options.picks:
                    from antiphon.cli.interactive.chat_picker import (  # loaded on first use
                        pick_chat,
                    )

                    session.head = await pick_chat(engine, self._output)
                if continues:
                    self._greet(f", {session.model}")
                from antiphon.cli.interactive.chat_start import start_chat  # loaded on first use

                self._loop = await start_chat(
                    engine, session, self._output, prompt, self._interrupt, loading, line
                )
                await self._loop.run()
                return session.head
        finally:
            await prompt.close()

    def _greet(self, model: str) -> None:
        self._output.note(f"antiphon {__version__}{model}; /help lists the commands, Ctrl-D leaves")


def _program_name() -> str:
    """This program's name, as a shell in this folder would find it."""
    here = Path(sys.argv[0])
    on_path = shutil.which(here.name)
    if on_path and Path(on_path).resolve() == here.resolve():
        return here.name
    return sys.argv[0]
