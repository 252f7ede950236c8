"""One-shot chat: asks once; nothing but the answer goes to standard output, for scripts."""

from __future__ import annotations

import select
import sys
from functools import partial
from typing import TYPE_CHECKING

from antiphon.cli import terminal_output
from antiphon.cli.chat_engine import open_session
from antiphon.cli.interrupt import InterruptHandler, run_interruptible
from antiphon.core.events import RefusalDelta, TextDelta
from antiphon.errors import InvalidRequestError
from antiphon.settings import Settings

if TYPE_CHECKING:
    from antiphon.cli.chat import ChatCommandOptions
    from antiphon.cli.interactive.chat_output import ChatOutput
    from antiphon.cli.interactive.chat_session import ChatSession

EXIT_INTERRUPTED = 130
#: Seconds of silence on stdin after which a note says what is being waited for.
_STDIN_NOTICE_DELAY = 3.0


def run_one_shot(settings: Settings, options: ChatCommandOptions) -> int:
    """Ask once and print the answer; returns the exit code."""
    return run_interruptible(partial(_run, settings, options, read_prompt(options.prompt)))


async def _run(
    settings: Settings, options: ChatCommandOptions, text: str, interrupt: InterruptHandler
) -> int:
    output = None
    if sys.stdout.isatty():
        from antiphon.cli.interactive.chat_output import (  # loaded on first use
            ChatOutput,
            Terminal,
        )

        output = ChatOutput(Terminal(is_plain=options.wants_plain))
    async with open_session(settings, options, terminal_output.print_note) as (
        _,
        session,
        _loading,
    ):
        return await ask_once(session, text, interrupt, output)


def read_prompt(prompt: str | None) -> str:
    """The question: ``prompt`` and the text piped in. Raises ``InvalidRequestError`` if empty."""
    piped = _read_stdin() if prompt is None or not sys.stdin.isatty() else ""
    text = "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)
    if not text.strip():
        raise InvalidRequestError("there is nothing to ask: the prompt is empty")
    return text


async def ask_once(
    session: ChatSession, text: str, interrupt: InterruptHandler, output: ChatOutput | None
) -> int:
    """Run one turn, print the answer, and return the exit code.

    ``output`` None: the answer goes to a file or a pipe, as the model wrote it.
    """
    from antiphon.cli.answer_schema import check_json  # loaded on first use
    from antiphon.cli.interactive.answer_view import AnswerView, has_schema  # loaded on first use
    from antiphon.cli.interactive.chat_session import answer_text  # loaded on first use

    if await session.open_calls():
        raise InvalidRequestError(
            f"a call waits for a decision first: antiphon chat --from {session.head}"
        )
    turn = await session.start(text)
    is_json = has_schema(session.options)
    view = AnswerView(output, lambda: session.model, is_json=is_json) if output else None
    last = "\n"
    with interrupt.stop_on_interrupt(partial(turn.stop, None)):
        async for batch in turn.events(view.pause if view else None):
            if view is not None:
                view.show(batch)
                continue
            for event in batch:
                if isinstance(event, TextDelta | RefusalDelta):
                    terminal_output.print_output(event.text)
                    last = event.text[-1:] or last
    if view is not None:
        view.end()
    elif last != "\n":
        terminal_output.print_output("\n")
    response = await turn.result()
    if turn.error is not None:
        raise turn.error
    if is_json and response.status == "completed" and not response.open_calls:
        check_json(answer_text(response))
    if response.open_calls:
        terminal_output.print_note(
            f"a call waits for a decision: antiphon approvals ({response.id})"
        )
    if note := terminal_output.status_note(response):
        terminal_output.print_note(note)
    return EXIT_INTERRUPTED if response.status == "cancelled" else 0


def _read_stdin() -> str:
    if sys.stdin.isatty():
        terminal_output.print_note("type what to ask; Ctrl-D ends it")
    elif sys.platform != "win32" and not select.select([sys.stdin], [], [], _STDIN_NOTICE_DELAY)[0]:
        # An open pipe without a writer looks like a hang otherwise.
        terminal_output.print_note("waiting for standard input to end (< /dev/null for none)")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "standard input is not text in the terminal's encoding"
        ) from error
