"""A terminal for tests: runs a program in one, types, and reads what it shows."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from support.program_process import ProgramProcess
from support.terminal_screen import TerminalScreen

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_=>78])")
#: The longest that anything is waited for, in seconds: a failure, not a measure.
_PATIENCE = 30.0
#: How many of the last characters a failure quotes.
_LAST_SHOWN = 2_000
_ROWS = 40
#: What the line below a prompt begins with while an answer comes.
_WHILE_ANSWERING = "Esc stops the answer"
#: What a program writes to learn where the cursor is.
_ASK_CURSOR = b"\x1b[6n"
CTRL_C = "\x03"
CTRL_D = "\x04"
ESCAPE = "\x1b"


#: Makes the terminal the program's own, so that its keys send signals.
_LAUNCHER = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class Terminal:
    """``antiphon`` with ``args`` in a terminal 100 columns wide. Killed at the end if still there.

    ``is_script``: the arguments are those of Python, for a program of another's.
    """

    process: ProgramProcess | subprocess.Popen[bytes]

    def __init__(
        self, args: Sequence[str], env: Mapping[str, str], cwd: Path, *, is_script: bool = False
    ) -> None:
        self._columns = 100
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, self._columns, 0, 0))
        self._first_modes = self._modes()
        env = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env}
        if is_script:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCHER, *args],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=env,
                cwd=cwd,
                start_new_session=True,
            )
        else:
            self.process = ProgramProcess(args, env, cwd, terminal=slave)
        os.close(slave)
        self._raw = b""
        self._seen = 0
        #: The screen, and how much of what was written it has.
        self._played: tuple[TerminalScreen, codecs.IncrementalDecoder, int] | None = None
        #: How many times the program was told where the cursor is.
        self._answered = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self.process:
            self.process.kill()
        os.close(self._master)

    @property
    def shown(self) -> str:
        """All that was written so far, without what only moves or colours."""
        return _ESCAPES.sub("", self._raw.decode(errors="replace")).replace("\r", "")

    @property
    def written(self) -> str:
        """All that was written so far, as it was."""
        return self._raw.decode(errors="replace")

    @property
    def rows(self) -> list[str]:
        """What a terminal shows of that, scrollback included."""
        return self._screen().rows

    def _screen(self) -> TerminalScreen:
        """What it shows, as wide as it is now."""
        if self._played is None:
            new_decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
            self._played = TerminalScreen(self._columns, _ROWS), new_decoder, 0
        screen, decoder, length = self._played
        screen.write(decoder.decode(self._raw[length:]))
        self._played = screen, decoder, len(self._raw)
        return screen

    def type(self, text: str) -> None:
        """Press these keys; a line's end is Enter."""
        os.write(self._master, text.replace("\n", "\r").encode())

    def resize(self, columns: int) -> None:
        """Make the terminal so wide. Terminals differ in what they do with what they show."""
        self._columns, self._played = columns, None
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))

    def expect(self, text: str) -> str:
        """Wait for ``text`` behind what was waited for before; returns what came up to it."""
        deadline = time.monotonic() + _PATIENCE
        while (at := self.shown.find(text, self._seen)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come; shown: {self.shown[self._seen :]!r}")
        before = self.shown[self._seen : at]
        self._seen = at + len(text)
        return before

    def expect_row(self, text: str) -> None:
        """Wait until a row shows ``text``, in however many pieces it was written."""
        deadline = time.monotonic() + _PATIENCE
        while not any(text in row for row in self.rows):
            if not self._read(deadline):
                raise AssertionError(f"no row shows {text!r}: {self.rows}")

    def expect_prompt(self, draft: str = "") -> None:
        """Wait until the cursor is at the end of a prompt with that in it, and nothing is answered.

        In however many drawings. What is waited for next comes behind it.
        """
        self._expect_cursor(
            f"> {draft}",
            lambda screen: (
                screen.row_to_cursor == f"> {draft}"
                and not screen.row_below_cursor.startswith(_WHILE_ANSWERING)
            ),
        )

    def expect_typed(self, draft: str) -> None:
        """Wait until the cursor is at the end of a prompt with that in it, also below an answer."""
        self._expect_cursor(draft, lambda screen: screen.row_to_cursor == f"> {draft}")

    def expect_asked(self, question: str) -> None:
        """Wait until the cursor is behind that: a question whose answer is typed there."""
        self._expect_cursor(question, lambda screen: screen.row_to_cursor.endswith(question))

    def _expect_cursor(self, text: str, is_there: Callable[[TerminalScreen], bool]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not is_there(self._screen()):
            if not self._read(deadline):
                raise AssertionError(f"{text!r} is not before the cursor: {self.rows}")
        self._seen = len(self.shown)

    def leave(self) -> int:
        """Wait for the program's own end; returns its exit code."""
        deadline = time.monotonic() + _PATIENCE
        while self._read(deadline):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not end; shown: {self.shown[-_LAST_SHOWN:]!r}")
        return self.process.wait(_PATIENCE)

    @property
    def is_restored(self) -> bool:
        """Whether it is set as it was before: that it echoes, which keys send signals."""
        return self._modes() == self._first_modes

    def _modes(self) -> list[object]:
        return termios.tcgetattr(self._master)

    def hang_up(self) -> int:
        """Close the terminal's window; returns the program's exit code."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDWR)
        return self.process.wait(_PATIENCE)

    def kill(self) -> None:
        """End the program as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False  # how Linux says that nobody holds the other side any more
        self._raw += data
        # A question may come in two pieces, or two in one.
        for _ in range(self._raw.count(_ASK_CURSOR) - self._answered):
            self._answered += 1
            row, column = self._screen().cursor
            os.write(self._master, f"\x1b[{row + 1};{column + 1}R".encode())
        return bool(data)
