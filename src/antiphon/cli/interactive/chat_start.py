"""Start of a chat: its history at the prompt, its commands, and the turn that it continues."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from antiphon.cli.interactive import chat_commands, tree_commands, turn_commands
from antiphon.cli.interactive.answer_view import print_turn
from antiphon.cli.interactive.chat_loop import ChatLoop, ChatPrompt
from antiphon.cli.interactive.chat_output import ChatOutput
from antiphon.cli.interactive.chat_session import ChatSession, user_text
from antiphon.cli.interactive.prompt_line import PromptLine
from antiphon.cli.interrupt import InterruptHandler
from antiphon.core.items import decode_item
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.chat_protocols import ChainWindow
from antiphon.turn.store_protocols import Window

if TYPE_CHECKING:
    from antiphon.bootstrap import Engine

#: Conversations whose first message is in the prompt history.
_MAX_HISTORY_CONVERSATIONS = 200
#: The last turns of the present one whose questions are.
_MAX_HISTORY_TURNS = 200
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
            line.set_history(await _past_questions(session))

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
        await _show_last_turn(loop)
    return loop


async def _show_last_turn(loop: ChatLoop) -> None:
    """Print the turn that the next one continues; one that runs yet, as it comes."""
    session = loop.session
    last = await session.last_turn()
    part = await loop.chats.window(DEFAULT_TENANT, last.id, ChainWindow(1), with_images=False)
    plural = "s" * (part.total != 1)
    loop.output.note(f"continuing after {part.total} turn{plural}, {session.model}\n")
    if last.end is None:
        await loop.attach(last)
    else:
        print_turn(loop.output, last, user_text(last.input))
        loop.output.lines([()])
        await loop.end_turn(last)


async def _past_questions(session: ChatSession) -> list[str]:
    """What was asked, oldest first: lately in this chat, and first in each chat before.

    Read from the store: no second copy is on disk, and what is erased is not in it either.
    """
    reader = session.service.reader
    recent = await reader.recent_threads(DEFAULT_TENANT, _MAX_HISTORY_CONVERSATIONS)
    last = session.head or (recent[0].response_id if recent else None)
    window = Window(_MAX_HISTORY_TURNS)
    turns = await reader.window(DEFAULT_TENANT, last, window) if last else []
    first = [decode_item(one.first_item) for one in recent if one.first_item]
    texts = [user_text(turn.input) for turn in turns] + [user_text([item]) for item in first]
    newest_first = dict.fromkeys(filter(None, texts))
    return list(reversed(newest_first))
