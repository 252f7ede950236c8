"""Program parent: has the modules of a program loaded, and forks a process for each request.

    python -m support.program_parent PROGRAM SOCKET

It ends with its standard input. A request is a JSON object with three open files; the answer is
the process's id, and later its exit code. A process is killed when its request's link is closed.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import termios
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

#: What the processes of a program would load.
_ANTIPHON = (
    "aiohttp",
    "uvicorn",
    "uvloop",
    "antiphon.api.grpc.server",
    "antiphon.api.http.routes",
    "antiphon.api.mcp.server",
    "antiphon.api.mcp.streamable_http",
    "antiphon.cli.mcp",
    "antiphon.cli.server",
    "antiphon.cli.interactive.chat_picker",
    "antiphon.cli.interactive.chat_start",
    "antiphon.cli.interactive.opening",
    "antiphon.cli.markdown.markdown_stream",
    "antiphon.models.openai.chat_completions",
    "antiphon.models.scripted",
    "antiphon.stores.sqlite.store",
    "antiphon.cli.main",
)
_MCP_SERVER = ("mcp.server.mcpserver", "mcp.server.runner", "mcp.server.stdio", "uvicorn")


def serve(at: str) -> list[str] | None:
    """Fork for each request. Returns in the forked processes, with their arguments."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(at)
        listener.listen()
        os.close(1)
        os.open(os.devnull, os.O_WRONLY)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                return None
            link, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return _start(link)
            link.close()
            _reap()


def _reap() -> None:
    """Forget the processes that have ended."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _start(link: socket.socket) -> list[str]:
    """Fork the program and report its end; returns in the program."""
    data, files, _, _ = socket.recv_fds(link, 1 << 20, 3)
    request = json.loads(data)
    ended, wake = socket.socketpair()
    wake.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno())
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        with suppress(OSError):
            link.sendall(f"{pid}\n".encode())
        status = _wait(pid, link, ended)
        with suppress(OSError):
            link.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in (link, ended, wake):
        one.close()
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    if request["has_terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    return list(request["args"])


def _wait(pid: int, link: socket.socket, ended: socket.socket) -> int:
    """The status that a process ends with; it is killed when the link is closed."""
    watched = [link, ended]
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        ready, _, _ = select.select(watched, [], [])
        if ended in ready:
            ended.recv(64)
        if link in ready:
            watched.remove(link)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _open_standard_files() -> None:
    """The streams of this process, as an interpreter that starts would open them."""
    text = partial(open, encoding="utf-8", closefd=False)
    sys.stdin = text(0, errors="surrogateescape")
    sys.stdout = text(1, "w", errors="surrogateescape")
    sys.stderr = text(2, "w", 1, errors="backslashreplace")


def _run_antiphon() -> None:
    import_module("antiphon.cli.main").main()


def _run_mcp_server() -> None:
    runpy.run_path(str(Path(__file__).with_name("sample_mcp_server.py")), run_name="__main__")


#: By name: what is loaded once, and what each process runs.
PROGRAMS = {"antiphon": (_ANTIPHON, _run_antiphon), "mcp": (_MCP_SERVER, _run_mcp_server)}


def main() -> None:
    modules, run = PROGRAMS[sys.argv[1]]
    # As ``bootstrap.grpc_server`` has it, before gRPC is loaded.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    for name in modules:
        import_module(name)
    # What is loaded stays: no process collects it, nor copies its memory by doing so.
    gc.freeze()
    args = serve(sys.argv[2])
    if args is not None:
        _open_standard_files()
        sys.argv = args
        run()


if __name__ == "__main__":
    main()
