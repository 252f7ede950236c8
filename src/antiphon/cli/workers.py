"""Workers: several server processes behind one port, and the one that starts and watches them.

Each binds the port for itself (SO_REUSEPORT), and the system spreads the connections. The parent
opens no store and runs no event loop, so that it can be forked at any time: a worker that dies is
started again, and a stop signal is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
import traceback
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from antiphon.cli import terminal_output
from antiphon.cli.node_listener import listen_error
from antiphon.errors import AntiphonError, ConfigError
from antiphon.settings import Settings

#: A worker that lived for less than this, in seconds, is started again only after as long.
_MIN_LIFE: Final = 1.0
_MAX_PORT: Final = 65535


class WorkerPipe:
    """A worker's ends of the pipes to its parent: to report by, and to notice its end by."""

    def __init__(self, reports: int, parent: int, number: int, server: str) -> None:
        #: Which worker it is, from 0 on: one that is started again has the same. ``server`` is
        #: what all workers of this server have in common, and no other process knows.
        self.number = number
        self.server = server
        self._reports = reports
        self._parent = parent

    def send_ready(self, lines: Sequence[str]) -> None:
        """Report that it listens; the lines are those that a server alone would print."""
        self._send({"lines": list(lines)})

    def send_failure(self, message: str) -> None:
        """Report why it cannot serve."""
        self._send({"error": message})

    def on_parent_gone(self, stop: Callable[[], None]) -> None:
        """Have ``stop`` called, on the running event loop, when the parent has died."""
        loop = asyncio.get_running_loop()

        def stop_once() -> None:
            loop.remove_reader(self._parent)
            stop()

        loop.add_reader(self._parent, stop_once)

    def _send(self, report: dict[str, object]) -> None:
        # The parent may be gone: then there is nobody to tell.
        with contextlib.suppress(OSError):
            os.write(self._reports, json.dumps(report).encode() + b"\n")


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a server: that its terminal was closed is one, unless under nohup."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return numbers
    return (*numbers, signal.SIGHUP)


class ServeProcess(Protocol):
    """Serves in the process that it is called in, until a signal."""

    def __call__(self, settings: Settings, worker: WorkerPipe | None = None) -> None: ...


def print_address(lines: Sequence[str]) -> None:
    """Print what a server says of itself once it listens."""
    terminal_output.print_output(f"{lines[0]}\n")
    for line in lines[1:]:
        terminal_output.print_note(line)


def open_page(address: str) -> None:
    """Open the chat page of the server at ``scheme://host:port`` in the browser."""
    parts = urlsplit(address)
    # An address that stands for all of this machine's is none to go to.
    if parts.hostname in {"0.0.0.0", "::"}:  # noqa: S104
        address = f"{parts.scheme}://localhost:{parts.port}"
    if not webbrowser.open(f"{address}/"):
        terminal_output.print_note("no browser could be opened")


def run_workers(settings: Settings, serve: ServeProcess, *, open_page: bool) -> None:
    """Serve by ``settings.workers`` processes until SIGINT or SIGTERM. Raises ``ConfigError``."""
    if not hasattr(os, "fork") or not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigError("--workers: this system cannot have several processes on one port")
    if settings.store == "memory:":
        raise ConfigError("--workers: the store memory: is one process's own, name another")
    with reserve_ports(settings) as reserved:
        _WorkerSupervisor(reserved, serve, open_page=open_page).run()


@contextmanager
def reserve_ports(settings: Settings) -> Iterator[Settings]:
    """The settings with ports that are free, and stay this server's while this is entered.

    Raises ``ConfigError``.
    """
    with contextlib.ExitStack() as stack:
        port = _reserve(settings.host, settings.port, stack)
        grpc_port = settings.grpc_port
        if grpc_port is None and settings.port == 0:
            grpc_port = _reserve(settings.host, 0, stack)
        elif grpc_port is not None and grpc_port != 0:
            _reserve(settings.host, grpc_port, stack)
        yield msgspec.structs.replace(settings, port=port, grpc_port=grpc_port)


def _reserve(host: str, port: int, stack: contextlib.ExitStack) -> int:
    """Bind a port, without listening: it gets no connections, and no other program gets it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # Other servers of this user that share their port would let this one in.
        with socket.create_server((host, port), family=family) as probe:
            port = probe.getsockname()[1]
        holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind((host, port))
    except (OSError, UnicodeError) as error:
        raise listen_error(host, port, error) from error
    return port


class _Worker(msgspec.Struct):
    number: int
    pid: int
    started_at: float
    reports: int
    is_ready: bool = False


class _WorkerSupervisor:
    """Starts the workers, starts a dead one again, and passes stop signals on."""

    def __init__(self, settings: Settings, serve: ServeProcess, *, open_page: bool) -> None:
        self._settings = settings
        self._serve = serve
        self._open_page = open_page
        self._workers: dict[int, _Worker] = {}
        self._server = secrets.token_hex(16)
        self._stop_signals = stop_signals()
        #: Closes with this process, however it ends; workers hold the other end.
        self._alive = os.pipe()
        self._is_stopping = False
        self._has_printed = False
        self._failure: str | None = None

    def run(self) -> None:
        before = {number: signal.signal(number, self._pass_on) for number in self._stop_signals}
        # Wakes ``select``, which a signal alone would not: Python calls it again.
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            for number in range(self._settings.workers):
                self._start_worker(number)
            while self._workers:
                self._wait(wake_read)
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in (*self._alive, wake_read, wake_write):
                os.close(end)
        if self._failure is not None:
            raise ConfigError(self._failure)

    def _wait(self, wake: int) -> None:
        """Wait for a report, a signal, or the end of a worker."""
        pipes = [worker.reports for worker in self._workers.values() if not worker.is_ready]
        readable, _, _ = select.select([wake, *pipes], [], [])
        if wake in readable:
            os.read(wake, 4096)
        for worker in list(self._workers.values()):
            if worker.reports in readable:
                self._read_report(worker)
        self._collect_dead()

    def _start_worker(self, number: int) -> None:
        # A stop signal in between would reach a worker that is not known yet, or one that still has
        # this process's handlers: nothing would ever stop that one.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._stop_signals)
        try:
            if not self._is_stopping:
                self._fork(number)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._stop_signals)

    def _fork(self, number: int) -> None:
        reports_read, reports_write = os.pipe()
        # What is buffered would be written by both.
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(reports_read)
            os.close(self._alive[1])
            pipe = WorkerPipe(reports_write, self._alive[0], number, self._server)
            _run_worker(self._settings, self._serve, pipe, self._stop_signals)
        os.close(reports_write)
        self._workers[pid] = _Worker(number, pid, time.monotonic(), reports_read)

    def _read_report(self, worker: _Worker) -> None:
        line = os.read(worker.reports, 65536)
        worker.is_ready = True
        if not line:
            return
        report = json.loads(line)
        if "error" in report and self._has_printed:
            # The others serve: what is in its way, such as a database that is away, may pass.
            terminal_output.print_note(f"worker {worker.pid} cannot serve: {report['error']}")
        elif "error" in report:
            # What one cannot do none can.
            self._failure = report["error"]
            self._stop(signal.SIGTERM)
        elif not self._has_printed and all(one.is_ready for one in self._workers.values()):
            self._has_printed = True
            print_address(report["lines"])
            terminal_output.print_note(f"workers: {len(self._workers)}")
            if self._open_page:
                open_page(report["lines"][0].rpartition(" ")[2])

    def _collect_dead(self) -> None:
        while self._workers:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is None:
                continue
            os.close(worker.reports)
            if self._is_stopping:
                continue
            code = os.waitstatus_to_exitcode(status)
            terminal_output.print_note(f"worker {pid} ended with {code}; another one is started")
            if time.monotonic() - worker.started_at < _MIN_LIFE:
                time.sleep(_MIN_LIFE)
            self._start_worker(worker.number)

    def _pass_on(self, number: int, _: FrameType | None) -> None:
        self._stop(number)

    def _stop(self, number: int) -> None:
        self._is_stopping = True
        for pid in list(self._workers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _run_worker(
    settings: Settings, serve: ServeProcess, pipe: WorkerPipe, stops: Sequence[signal.Signals]
) -> None:
    """Serve in a process that was just forked, and end it."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (*stops, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, stops)
        # Ctrl-C at a terminal reaches the parent alone, which passes it on.
        os.setpgid(0, 0)
        serve(settings, pipe)
        code = 0
    except AntiphonError as error:
        pipe.send_failure(error.message)
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        pipe.send_failure(f"{type(error).__name__}: {error}")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
