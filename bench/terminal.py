"""A terminal and an upstream to measure ``antiphon chat`` with, in one process and by one clock."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from bench.load import BenchError
from bench.processes import PRIVATE

COLUMNS, _ROWS = 100, 40
_PATIENCE = 30.0
#: Between the head of an answer and its first piece: the terminal is idle by then.
_PAUSE = 0.3
_ASK_CURSOR = b"\x1b[6n"
_MOVES = re.compile(rb"\x1b(?:[78]|\[[0-9;?]*[A-Zhl])")
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


class PacedUpstream:
    """A chat completions endpoint that answers every question with ``pieces``, one a ``pace``.

    ``sent_at`` has the time of each piece of the newest answer.
    """

    def __init__(self, pieces: Sequence[str], pace: float) -> None:
        self._pieces = pieces
        self._pace = pace
        self.sent_at: list[float] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._answer(link)

    def _answer(self, link: socket.socket) -> None:
        _read_request(link)
        link.sendall(_HEAD)
        time.sleep(_PAUSE)
        self.sent_at = []
        began = time.perf_counter()
        for number, piece in enumerate(self._pieces):
            if (early := began + number * self._pace - time.perf_counter()) > 0:
                time.sleep(early)
            self.sent_at.append(time.perf_counter())
            link.sendall(_event({"delta": {"content": piece}, "finish_reason": None}))
        link.sendall(_event({"delta": {}, "finish_reason": "stop"}) + b"data: [DONE]\n\n")


def _read_request(link: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += link.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    while len(body) < length:
        body += link.recv(65536)


def _event(choice: dict[str, object]) -> bytes:
    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class ChatTerminal:
    """``antiphon chat`` in a terminal of its own; ``started_at`` is when its process began."""

    def __init__(self, home: Path, arguments: Sequence[str]) -> None:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith(PRIVATE)
        } | {
            "TERM": "xterm-256color",
            "XDG_CONFIG_HOME": str(home),
            "XDG_DATA_HOME": str(home),
        }
        # As for a user, modules are compiled once, and not at each start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, COLUMNS, 0, 0))
        program = str(Path(sys.executable).parent / "antiphon")
        self.started_at = time.perf_counter()
        self._process = subprocess.Popen(
            [program, "chat", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=home,
            start_new_session=True,
        )
        os.close(slave)
        self.written = b""

    def __enter__(self) -> ChatTerminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait_for(self, text: str, start: int = 0) -> float:
        """When ``text`` was there, behind the first ``start`` bytes that were written."""
        now = time.perf_counter()
        limit = now + _PATIENCE
        while True:
            # Words that come in pieces have moves of the cursor between them.
            written = self.written[start:]
            if text.encode() in written or text.encode() in _MOVES.sub(b"", written):
                return now
            ready, _, _ = select.select([self._master], [], [], limit - time.perf_counter())
            now = time.perf_counter()
            if not ready:
                raise BenchError(f"{text!r} was not shown:\n{self.written[-500:]!r}")
            data = os.read(self._master, 65536)
            self.written += data
            for _ in range(data.count(_ASK_CURSOR)):
                # As a terminal does; where the cursor is does not matter to what is measured.
                os.write(self._master, f"\x1b[{_ROWS // 2};1R".encode())

    def cpu_ns(self) -> int:
        """CPU time of the program's threads so far."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks)
