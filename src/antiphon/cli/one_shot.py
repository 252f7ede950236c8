"""One question, one answer, for scripts: the answer alone goes to stdout."""

from __future__ import annotations

import select
import sys

from antiphon.cli import terminal_output
from antiphon.cli.chat_loop import ChatSession, status_note
from antiphon.errors import InvalidRequestError

EXIT_INTERRUPTED = 130
#: Seconds of silence on stdin after which a person is told what is being waited for.
_STDIN_NOTICE_DELAY = 3.0


def read_prompt(prompt: str | None) -> str:
    """What to ask: ``prompt``, and whatever is piped in. Raises ``InvalidRequestError`` if nothing."""
    piped = _read_stdin() if prompt is None or not sys.stdin.isatty() else ""
    text = "\n\n".join(part for part in (prompt, piped.strip("\n")) if part)
    if not text.strip():
        raise InvalidRequestError("there is nothing to ask: the prompt is empty")
    return text


async def ask_once(session: ChatSession, text: str) -> int:
    """Ask, print, and return the exit code."""
    response = await session.send(text)
    if said := status_note(response):
        terminal_output.print_note(said)
    return EXIT_INTERRUPTED if response.status == "cancelled" else 0


def _read_stdin() -> str:
    if sys.stdin.isatty():
        terminal_output.print_note("type what to ask; Ctrl-D ends it")
    elif sys.platform != "win32" and not select.select([sys.stdin], [], [], _STDIN_NOTICE_DELAY)[0]:
        # An open pipe that nobody writes to looks like a hang otherwise.
        terminal_output.print_note("waiting for standard input to end (< /dev/null for none)")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            "standard input is not text in the terminal's encoding"
        ) from error
