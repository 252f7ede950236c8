"""Opening of an interactive chat: builds session, output and prompt, and runs the loop."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from antiphon import __version__
from antiphon.cli.chat import ChatCommandOptions, open_session
from antiphon.cli.interactive import chat_commands, tree_commands, turn_commands
from antiphon.cli.interactive.answer_view import print_turn
from antiphon.cli.interactive.chat_loop import ChatLoop, ChatPrompt
from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.chat_picker import pick_chat
from antiphon.cli.interactive.chat_session import ChatSession, user_text
from antiphon.cli.interactive.plain_prompt import PlainPrompt
from antiphon.cli.interrupt import InterruptHandler
from antiphon.core.items import decode_item
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.settings import Settings
from antiphon.turn.chats import ChatService

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine
    from antiphon.cli.interactive.prompt_line import PromptLine

#: Conversations whose first message is in the prompt history.
_MAX_HISTORY_CONVERSATIONS = 200
_HANDLERS = {**chat_commands.HANDLERS, **turn_commands.HANDLERS, **tree_commands.HANDLERS}


async def run_interactive(
    settings: Settings, options: ChatCommandOptions, store: str | None, interrupt: InterruptHandler
) -> None:
    """Chat until the person leaves."""
    terminal = options.terminal()
    output = ChatOutput(terminal)
    async with open_session(settings, options) as (engine, session, loading):
        if options.picks:
            session.head = await pick_chat(ChatService(engine.service, engine.stores), output)
        output.note(
            f"antiphon {__version__}, {session.model}; /help lists the commands, Ctrl-D leaves"
        )
        loop = await _build_loop(engine, session, output, interrupt, loading)
        if session.head:
            await _show_last_turn(loop)
        try:
            await loop.run()
        finally:
            await loop.prompt.close()
    if session.head and settings.store != "memory:":
        option = f" --store {shlex.quote(store)}" if store else ""
        output.note(f"go on with: {_program_name()} chat --continue{option}")


async def _build_loop(
    engine: Engine,
    session: ChatSession,
    output: ChatOutput,
    interrupt: InterruptHandler,
    loading: asyncio.Task[None],
) -> ChatLoop:
    async def reload_history() -> None:
        if line is not None:
            line.set_history(await _past_questions(session))

    line: PromptLine | None = None
    prompt: ChatPrompt
    if output.terminal.is_plain:
        prompt = PlainPrompt(output)
    else:
        from antiphon.cli.interactive.prompt_line import PromptLine  # loaded on first use

        names = [name for name, _ in session.service.models.items()]
        line = PromptLine(output, await _past_questions(session), names, lambda: loop.status)
        output.prompt = line
        prompt = line
    loop = ChatLoop(
        engine,
        session,
        output,
        prompt,
        interrupt,
        loading=loading,
        handlers=_HANDLERS,
        reload_history=reload_history,
    )
    return loop


async def _show_last_turn(loop: ChatLoop) -> None:
    """Print the turn that the next one continues; one that runs yet, as it comes."""
    session = loop.session
    turns = await session.chain()
    plural = "s" * (len(turns) != 1)
    loop.output.note(f"continuing after {len(turns)} turn{plural}\n")
    last = turns[-1]
    if last.end is None:
        await loop.attach(last)
    else:
        print_turn(loop.output, last, user_text(last.input))
        loop.output.lines([()])
        await loop.end_turn(last)


async def _past_questions(session: ChatSession) -> list[str]:
    """What was asked, oldest first: in this chat, and first in each chat before.

    Read from the store: no second copy is on disk, and what is erased is not in it either.
    """
    reader = session.service.reader
    recent = await reader.recent_threads(DEFAULT_TENANT, _MAX_HISTORY_CONVERSATIONS)
    last = session.head or (recent[0].response_id if recent else None)
    turns: list[Response] = await reader.chain(DEFAULT_TENANT, last) if last else []
    first = [decode_item(one.first_item) for one in reversed(recent) if one.first_item]
    texts = [user_text([item]) for item in first] + [user_text(turn.input) for turn in turns]
    newest_first = dict.fromkeys(filter(None, reversed(texts)))
    return list(reversed(newest_first))


def _program_name() -> str:
    """This program's name, as a shell in this folder would find it."""
    here = Path(sys.argv[0])
    on_path = shutil.which(here.name)
    if on_path and Path(on_path).resolve() == here.resolve():
        return here.name
    return sys.argv[0]
