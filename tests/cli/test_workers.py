"""Workers: signals that come while one is being started, and workers that cannot serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.http_server import TIMEOUT

#: Has three workers that wait for a signal; what it is sent comes right behind a fork.
_PROGRAM = """
import os, signal, sys, time
from antiphon.cli.workers import run_workers
from antiphon.settings import load_settings

def serve(settings, worker=None):
    signal.pause()

def strike_parent():
    os.kill(os.getpid(), signal.SIGTERM)

def strike_child():
    # The parent passes it on to this process, which is no worker yet.
    os.kill(os.getppid(), signal.SIGTERM)
    while signal.SIGTERM not in signal.sigpending():
        time.sleep(0.01)

if sys.argv[1] == "parent":
    os.register_at_fork(after_in_parent=strike_parent)
else:
    os.register_at_fork(after_in_child=strike_child)
settings = load_settings({"workers": 3, "port": 0, "store": f"sqlite:{sys.argv[2]}"})
run_workers(settings, serve, open_page=False)
"""


@pytest.mark.parametrize("process", ["parent", "child"])
def test_signal_while_a_worker_is_started_stops_all(tmp_path: Path, process: str) -> None:
    arguments = [sys.executable, "-c", _PROGRAM, process, str(tmp_path / "turns.db")]
    with subprocess.Popen(arguments, start_new_session=True) as program:
        try:
            assert program.wait(TIMEOUT) == 0
        finally:
            program.kill()


#: Its first workers serve; each that is started again fails once, and then serves.
_RESTARTING = """
import os, signal, sys
from pathlib import Path
from antiphon.cli.workers import run_workers
from antiphon.errors import ConfigError
from antiphon.settings import load_settings

folder = Path(sys.argv[1])

def serve(settings, worker=None):
    print("begun", os.getpid(), flush=True)
    begun = len(list(folder.glob("begun-*")))
    (folder / f"begun-{begun}").touch()
    if begun == 1:
        raise ConfigError("the database is away")
    worker.send_ready([f"worker {begun}"])
    signal.pause()

settings = load_settings({"workers": 1, "port": 0, "store": f"sqlite:{folder / 'turns.db'}"})
run_workers(settings, serve, open_page=False)
"""


def test_worker_that_cannot_serve_again_yet_does_not_stop_the_others(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", _RESTARTING, str(tmp_path)]
    with subprocess.Popen(
        arguments, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as program:
        try:
            assert program.stdout is not None
            _, first = program.stdout.readline().split()
            assert program.stdout.readline() == "worker 0\n"
            os.kill(int(first), signal.SIGKILL)
            shown = [line for _, line in zip(range(6), program.stdout, strict=False)]
            assert sum(line.startswith("begun") for line in shown) == 2
            assert "cannot serve: the database is away" in "".join(shown)
            program.terminate()
            assert program.wait(TIMEOUT) == 0
        finally:
            program.kill()
