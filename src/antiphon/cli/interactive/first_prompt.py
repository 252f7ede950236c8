"""First prompt: the greeting and the prompt's mark, before the modules that read a line are loaded.

It imports nothing that takes long. What is typed meanwhile waits in the terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from antiphon import __version__

if sys.platform != "win32":
    import termios

#: Where a prompt begins, for terminals that jump from one to the next (OSC 133).
PROMPT_MARK = "\x1b]133;A\x1b\\"
MARK = "> "


def greeting(model: str | None) -> str:
    """What a chat begins with."""
    name = f", {model}" if model else ""
    return f"antiphon {__version__}{name}; /help lists the commands, Ctrl-D leaves"


def show_first_prompt(model: str | None) -> None:
    """Print the greeting, and the mark where the first question will be."""
    has_colors = not os.environ.get("NO_COLOR")
    faint, bold, plain = ("\x1b[2m", "\x1b[1;32m", "\x1b[0m") if has_colors else ("", "", "")
    name = "".join(char for char in model or "" if char.isprintable())
    sys.stdout.write(f"{faint}{greeting(name)}{plain}\r\n{PROMPT_MARK}{bold}{MARK}{plain}")
    sys.stdout.flush()


@contextmanager
def hold_typed_keys() -> Iterator[None]:
    """Type-ahead: keys typed while nothing reads wait for the next prompt and are not echoed.

    Ctrl-C alone does not wait: it stays a signal.
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
