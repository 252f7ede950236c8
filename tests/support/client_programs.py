"""Programs of real clients, each run by an environment that ``make test-clients`` installs.

    with agent_world(tmp_path) as world:
        outcomes = world.python("agents", "langgraph_program.py", "images")
        assert outcomes["images"] == ["2 images", "2 images"]

A Python program runs functions by name and prints what they returned (``programs.py``); it
and its environment have nothing of antiphon, which listens as ``antiphon serve``, a process
of its own over the upstream of ``agent_upstream``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.agent_upstream import answer_agent
from support.command_line import PROGRAM
from support.http_server import ServerProcess
from support.scenario import UpstreamThread

ROOT = Path(__file__).parents[2]
#: Where ``make test-clients`` installs, and where the programs are.
INSTALLED = ROOT / ".make" / "clients"
PROGRAMS = ROOT / "tests" / "clients" / "agents"
#: Seconds that a program may take, on a slow day.
RUNNING = 300

#: What the model says once it has called the tool of the tests for three cities.
WEATHER = "snow in Oslo | snow in Rome | snow in Bonn"


class Outcomes:
    """What functions came to, by name; one that failed fails the test that looks at it."""

    def __init__(self, outcomes: Mapping[str, dict[str, Any]]) -> None:
        self._outcomes = outcomes

    def __getitem__(self, name: str) -> Any:
        outcome = self._outcomes[name]
        assert "error" not in outcome, outcome["error"]
        return outcome["value"]


class AgentWorld:
    """A server over a scripted upstream, and a home folder for the clients' programs."""

    def __init__(self, home: Path, server: ServerProcess, upstream: UpstreamThread) -> None:
        self.home = home
        self.server = server
        self._upstream = upstream

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The bodies that the upstream got."""
        return [one.json for one in self._upstream.upstream.requests if one.method == "POST"]

    def python(self, group: str, program: str, *functions: str) -> Outcomes:
        """What functions of a Python program return, by name; skips where it is not installed."""
        interpreter = installed(group) / "bin" / "python"
        return self._outcomes([str(interpreter), str(PROGRAMS / "python" / program), *functions])

    def node(self, program: str, *functions: str) -> Outcomes:
        """What functions of a program for Node return, by name."""
        folder = installed("node")
        for file in (PROGRAMS / "node").glob("*.mjs"):
            # A module is looked for beside the program, and nowhere else.
            shutil.copy(file, folder)
        return self._outcomes(["node", str(folder / program), *functions])

    def run(
        self, command: Sequence[str], cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a client, in the home folder unless given another; it must end well."""
        done = subprocess.run(
            command,
            cwd=cwd or self.home,
            env=self.environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUNNING,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done

    def environment(self, variables: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of a client: a home of its own, the server's address, and no real key."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "OPENAI_BASE_URL": self.server.base_url,
            "OPENAI_API_KEY": "unused",
            "ANTIPHON": PROGRAM,
            "ANTIPHON_CONFIG": str(self.server.config),
            "ANTIPHON_STORE": f"sqlite:{self.server.database}",
            **(variables or {}),
        }

    def _outcomes(self, command: Sequence[str]) -> Outcomes:
        return Outcomes(json.loads(self.run(command).stdout.splitlines()[-1]))


def installed(group: str) -> Path:
    """The folder of a group of clients; the test is skipped where it is not there."""
    folder = INSTALLED / group
    if not (folder / ".complete").is_file():
        pytest.skip(f"{group} is not installed: make test-clients does it")
    return folder


@contextmanager
def agent_world(home: Path, *names: str) -> Iterator[AgentWorld]:
    """A server with these models. Fails at the end if the server's log has an error."""
    with UpstreamThread() as upstream:
        upstream.upstream.default_answer = answer_agent
        with ServerProcess(home, upstream.upstream.base_url, names or ("m",)) as server:
            yield AgentWorld(home, server, upstream)
            server.stop()
    log = (home / "server.log").read_text("utf-8")
    assert not re.search(r"Traceback|\bERROR\b", log), log
