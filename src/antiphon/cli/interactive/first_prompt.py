"""First prompt: the greeting and the prompt's mark, before the modules that read a line are loaded.

It imports nothing that takes long. What is typed meanwhile waits in the terminal.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from antiphon import __version__

if sys.platform != "win32":
    import fcntl
    import termios

#: Where a prompt begins, for terminals that jump from one to the next (OSC 133).
PROMPT_MARK = "\x1b]133;A\x1b\\"
MARK = "> "
#: Has a terminal mark what is pasted, whose lines are one text: an Enter in it sends nothing.
BEGIN_MARKED_PASTES = "\x1b[?2004h"
END_MARKED_PASTES = "\x1b[?2004l"


def greeting(model: str | None) -> str:
    """What a chat begins with."""
    name = f", {model}" if model else ""
    return f"antiphon {__version__}{name}; /help lists the commands, Ctrl-D leaves"


def show_first_prompt(model: str | None) -> None:
    """Print the greeting, and the mark where the first question will be."""
    show_greeting(model)
    sys.stdout.write(f"{PROMPT_MARK}{_styled(MARK, '1;32')}")
    sys.stdout.flush()


def show_greeting(model: str | None) -> None:
    name = "".join(char for char in model or "" if char.isprintable())
    # The last column stays free: terminals differ in what they do after it.
    width = max(shutil.get_terminal_size().columns - 1, 8)
    for line in textwrap.wrap(greeting(name), width, break_on_hyphens=False):
        sys.stdout.write(f"{_styled(line, '2')}\r\n")
    sys.stdout.flush()


def _styled(text: str, style: str) -> str:
    return text if os.environ.get("NO_COLOR") else f"\x1b[{style}m{text}\x1b[0m"


@contextmanager
def hold_typed_keys() -> Iterator[None]:
    """Type-ahead: keys typed while nothing reads wait for the next prompt and are not echoed.

    Ctrl-C alone does not wait: it stays a signal.
    """
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    # Until the chat handles them: a terminal that does not echo is not to stay behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)
    original = termios.tcgetattr(sys.stdin)
    type_ahead = [*original]
    # As the prompt will read them: Enter and Ctrl-D are keys, no ends of lines and files.
    type_ahead[0] &= ~termios.ICRNL
    type_ahead[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(sys.stdin, termios.TCSANOW, type_ahead)
    # What was typed before is read by the prompt, which shows it: the terminal's echo goes.
    sys.stdout.write("\r\x1b[K" * _has_typed_keys() + BEGIN_MARKED_PASTES)
    sys.stdout.flush()
    try:
        yield
    finally:
        # The terminal may be gone.
        with suppress(OSError, termios.error):
            termios.tcsetattr(sys.stdin, termios.TCSANOW, original)
            sys.stdout.write(END_MARKED_PASTES)
            sys.stdout.flush()


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


def _has_typed_keys() -> bool:
    waiting = fcntl.ioctl(sys.stdin, termios.FIONREAD, bytes(4))
    return waiting != bytes(4)
