"""Start of a chat: its history at the prompt, its commands, and the turn that it continues."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from antiphon.cli.interactive import chat_commands, tree_commands, turn_commands
from antiphon.cli.interactive.chat_loop import ChatLoop, ChatPrompt
from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.chat_session import ChatSession, user_text
from antiphon.cli.interactive.prompt_line import PromptLine
from antiphon.cli.interrupt import InterruptHandler
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import NotFoundError
from antiphon.turn.store_protocols import Window

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

#: How many chats, and how many of the last questions of each, are in the prompt's history.
_MAX_HISTORY_CHATS = 50
_MAX_CHAT_QUESTIONS = 10
#: The same of the chat that is gone on with.
_MAX_PRESENT_QUESTIONS = 200
_HANDLERS = {**chat_commands.HANDLERS, **turn_commands.HANDLERS, **tree_commands.HANDLERS}


async def start_chat(
    engine: Engine,
    session: ChatSession,
    output: ChatOutput,
    prompt: ChatPrompt,
    interrupt: InterruptHandler,
    loading: asyncio.Task[None],
    line: PromptLine | None,
) -> ChatLoop:
    """A loop that is ready to run; ``line`` is the prompt where it has a history."""

    async def load_history() -> None:
        if line is not None:
            line.set_history(await _past_questions(engine, session))

    if line is not None:
        line.set_model_names(name for name, _ in session.service.models.items())
    await load_history()
    loop = ChatLoop(
        engine,
        session,
        output,
        prompt,
        interrupt,
        loading=loading,
        handlers=_HANDLERS,
        reload_history=load_history,
    )
    if session.head:
        await loop.show_last_turn()
    return loop


async def _past_questions(engine: Engine, session: ChatSession) -> list[str]:
    """What was asked, oldest first: last in each chat, and in this one.

    Read from the store: no second copy is on disk, and what is erased is not in it either.
    """
    chats = await engine.stores.chats.list_chats(DEFAULT_TENANT, _MAX_HISTORY_CHATS)
    heads = [chat.head for chat in chats]
    present = session.head or (heads[0] if heads else None)
    newest_first: dict[str, None] = {}
    for head in dict.fromkeys([present, *heads] if present else heads):
        limit = _MAX_PRESENT_QUESTIONS if head == present else _MAX_CHAT_QUESTIONS
        try:
            turns = await engine.service.reader.window(DEFAULT_TENANT, head, Window(limit))
        except NotFoundError:
            continue  # it was erased meanwhile
        newest_first |= dict.fromkeys(filter(None, (user_text(turn.input) for turn in turns)))
    return list(reversed(newest_first))
