"""Interactive terminal chat: prompt line, key bindings, prompt history, one turn per prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from antiphon.cli import terminal_output
from antiphon.cli.chat import ChatSession, status_note
from antiphon.core.items import Item, Message, decode_item, text_of
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import AntiphonError

if sys.platform != "win32":
    import termios

_EXIT_WORDS = {"exit", "quit"}
_PROMPT = FormattedText([("bold ansigreen", "> ")])
#: Conversations whose first message is in the prompt history.
_MAX_HISTORY_CONVERSATIONS = 50


async def print_last_turn(chat: ChatSession) -> None:
    """Print the turn that the next one continues."""
    turns = await chat.turns()
    terminal_output.print_note(f"continuing after {len(turns)} turn{'s' * (len(turns) != 1)}\n")
    for turn in turns[-1:]:
        for item in (*turn.input, *turn.output):
            if isinstance(item, Message) and item.role in {"user", "assistant"}:
                mark = "> " if item.role == "user" else ""
                terminal_output.print_note(mark + text_of(item.content))
        terminal_output.print_note("")


async def run_chat_loop(chat: ChatSession) -> None:
    """Prompt and answer until the person leaves. An error ends its turn, not the chat."""
    session: PromptSession[str] = PromptSession(
        _PROMPT,
        history=await _prompt_history(chat),
        key_bindings=_key_bindings(),
        enable_suspend=True,
    )
    with _hold_typed_keys():
        while (text := await _read_prompt(session)) is not None:
            if text:
                await _run_turn(chat, text)


async def _read_prompt(session: PromptSession[str]) -> str | None:
    """The next message, stripped; None: leave."""
    try:
        text = (await session.prompt_async()).strip()
    except EOFError:
        return None
    except KeyboardInterrupt:
        terminal_output.print_note("Ctrl-C again or Ctrl-D leaves")
        try:
            text = (await session.prompt_async()).strip()
        except (EOFError, KeyboardInterrupt):
            return None
    return None if text.lower() in _EXIT_WORDS else text


async def _run_turn(chat: ChatSession, text: str) -> None:
    try:
        response = await chat.send(text)
        if note := status_note(response):
            terminal_output.print_note(note)
    except AntiphonError as error:
        terminal_output.print_error(error.message)
    terminal_output.print_output("\n")


async def _prompt_history(chat: ChatSession) -> InMemoryHistory:
    """Prompt history for the arrow keys: the user messages of the last conversation, and the
    first one of each conversation before.

    Read from the store: no second copy is on disk, and what is deleted is not in it either.
    """
    recent = await chat.service.reader.recent_threads(DEFAULT_TENANT, _MAX_HISTORY_CONVERSATIONS)
    last = chat.head or (recent[0].response_id if recent else None)
    turns = await chat.service.reader.chain(DEFAULT_TENANT, last) if last else []
    items = [decode_item(thread.first_item) for thread in reversed(recent) if thread.first_item]
    items += [item for turn in turns for item in turn.input]
    newest_first = dict.fromkeys(filter(None, map(_user_text, reversed(items))))
    return InMemoryHistory(list(reversed(newest_first)))


def _user_text(item: Item) -> str:
    if isinstance(item, Message) and item.role == "user":
        return text_of(item.content).strip()
    return ""


def _key_bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("c-c")
    @bindings.add("<sigint>")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings


@contextmanager
def _hold_typed_keys() -> Iterator[None]:
    """Type-ahead: keys typed during an answer wait for the next prompt and are not echoed.

    Ctrl-C alone does not wait: it stays a signal, and stops the answer.
    """
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    original = termios.tcgetattr(sys.stdin)
    type_ahead = [*original]
    # As the prompt will read them: Enter and Ctrl-D are keys, no ends of lines and files.
    type_ahead[0] &= ~termios.ICRNL
    type_ahead[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, type_ahead)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, original)
