"""Servers that are stopped and killed at random moments: what was acknowledged is answered, once.

Clients send background turns and queues of them, each with an Idempotency-Key, and again until
they are acknowledged. A program beside the servers reads all of it meanwhile. At the end each turn
has its answer, whose text shows what the model was sent: all that was said before, in order.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from antiphon.bootstrap import open_engine
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.errors import NotFoundError
from antiphon.settings import Settings
from antiphon.stores.interrupted_turns import MAX_DEATHS
from support.example_counts import examples
from support.http_server import PROGRAM, TIMEOUT, Address, Answer
from support.misbehaving_upstream import Behaviour, Request
from support.node_cluster import Stream
from support.postgres_database import empty_database
from support.program_process import ProgramProcess
from support.scenario import DONE, UpstreamThread, end, stream_of, text, whole

Json = dict[str, Any]
#: Answers of servers that stop, and of one that waits for another to do as much.
_TRY_AGAIN = {"draining", "idempotency_key_in_progress"}
#: How often a server is restarted.
RESTARTS = 8
#: How long the model thinks at most.
ANSWER_SECONDS = 0.4


class Upstream:
    """Answers with the questions that it was sent, after a while that differs."""

    def __init__(self, thread: UpstreamThread, random_numbers: random.Random) -> None:
        self._thread = thread
        self._random = random_numbers
        self._running: defaultdict[str, list[tuple[Request, asyncio.Event]]] = defaultdict(list)
        #: Questions that were asked while another process waited for their answer.
        self.doubled: list[str] = []
        self.base_url = thread.upstream.base_url
        thread.upstream.default_answer = self._answer

    def count(self, question: str) -> int:
        """How often a question was asked."""
        return len(self._running[question])

    def _answer(self, request: Request) -> Behaviour:
        if request.method != "POST":
            return stream_of(status=404)
        questions = [one["content"] for one in request.json["messages"] if one["role"] == "user"]
        answered = asyncio.Event()
        asked = self._running[questions[-1]]
        for other, its_answer in asked:
            # Its client may have died in this moment.
            if not (other.disconnected.is_set() or its_answer.is_set()):
                self._thread.loop.call_later(1.0, self._look, questions[-1], other)
        asked.append((request, answered))
        self._thread.loop.call_later(self._random.uniform(0, ANSWER_SECONDS), answered.set)
        said = " ".join(questions)
        if not request.json.get("stream"):
            return [answered, *whole({"role": "assistant", "content": said})]
        return stream_of(text(said[:3]), answered, text(said[3:]), end(), DONE)

    def _look(self, question: str, request: Request) -> None:
        if not request.disconnected.is_set():
            self.doubled.append(question)


class RestartedServer:
    """A server that comes and goes; ``address`` is None while it does not listen."""

    def __init__(self, home: Path, base_url: str, store: str) -> None:
        config = home / "antiphon.toml"
        model = f'[models.m]\nbase_url = "{base_url}"\n'
        config.write_text(f'model = "m"\nretention_days = 1\n{model}')
        self._home = home
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ANTIPHON_CONFIG": str(config),
            "ANTIPHON_STORE": store,
            "ANTIPHON_PORT": "0",
            "ANTIPHON_GRPC_PORT": "0",
        }
        self._process: ProgramProcess | None = None
        self._reader: threading.Thread | None = None
        self.address: Address | None = None

    def start(self, drain_seconds: float) -> None:
        """Start it, and do not wait until it listens."""
        with (self._home / "server.log").open("ab") as log:
            command = [PROGRAM, "serve", "--drain-seconds", str(drain_seconds)]
            process = ProgramProcess(command, self._environment, self._home, stderr=log)
        self._process = process
        self._reader = threading.Thread(target=self._read_port, args=(process,))
        self._reader.start()

    def send(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait until it has ended."""
        assert self._process is not None
        assert self._reader is not None
        self._reader.join(TIMEOUT)
        self.address = None
        assert self._process.returncode is not None, "it does not end"
        return self._process.returncode

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.send(signal.SIGKILL)
        self.wait()

    def _read_port(self, process: ProgramProcess) -> None:
        with process:  # which waits for its end
            for line in process.stdout:
                if found := re.search(r"listening on http://127\.0\.0\.1:(\d+)", line):
                    self.address = Address(int(found[1]))


class Client:
    """Sends chains of background turns, each behind the one before, until it is told to stop."""

    def __init__(
        self, number: int, servers: list[RestartedServer], seed: int, is_over: threading.Event
    ) -> None:
        self._is_over = is_over
        self._number = number
        self._servers = servers
        self._random = random.Random(f"{seed} {number}")
        #: What was acknowledged: the id, and the questions up to it.
        self.turns: dict[str, list[str]] = {}
        #: What it took back, and the status that it was told.
        self.cancelled: dict[str, str] = {}
        self.deleted: set[str] = set()

    def run(self, are_sent: threading.Event) -> None:
        for chain in itertools.count():
            if are_sent.is_set():
                return
            self._send_chain(f"{self._number}.{chain}")

    def _send_chain(self, name: str) -> None:
        previous, questions = None, []
        for place in range(self._random.randrange(1, 5)):
            questions.append(f"q{name}.{place}")
            body: Json = {"input": questions[-1], "background": True}
            if previous:
                body |= {"previous_response_id": previous, "on_busy": "queue"}
            previous = self._create(body, questions[-1])
            self.turns[previous] = list(questions)
            if self._random.random() < 0.2:
                # As if the answer had not arrived.
                assert self._create(body, questions[-1]) == previous
            if self._random.random() < 0.3:
                time.sleep(self._random.uniform(0, 2 * ANSWER_SECONDS))
        if previous is not None and self._random.random() < 0.3:
            self._take_back(previous)

    def _take_back(self, name: str) -> None:
        """Cancel a turn, or delete it, behind which there is none."""
        path = f"/v1/responses/{name}"
        if self._random.random() < 0.5:
            self.deleted.add(name)
            self._ask("DELETE", path, {}, {})
            return
        answer = self._ask("POST", f"{path}/cancel", {}, {})
        self.cancelled[name] = answer.json["status"] if answer.status == 200 else "completed"

    def _create(self, body: Json, key: str) -> str:
        """The id of a turn, once a server has it."""
        answer = self._ask("POST", "/v1/responses", body, {"idempotency-key": key})
        return str(answer.json["id"])

    def _ask(self, method: str, path: str, body: Json, headers: dict[str, str]) -> Answer:
        """The answer of any server, once one has answered."""
        is_repeated = False
        while not self._is_over.is_set():
            address = self._random.choice(self._servers).address
            if address is not None:
                with suppress(OSError, HTTPException):
                    answer = address.request(method, path, body, headers)
                    code = None if answer.status == 200 else answer.error["code"]
                    if code not in _TRY_AGAIN:
                        # The answer before may not have arrived.
                        is_over = code == "response_not_cancellable"
                        is_gone = code == "response_not_found" and is_repeated
                        assert code is None or is_over or is_gone, answer.body
                        return answer
                is_repeated = True
            time.sleep(0.02)
        raise AssertionError("nobody has answered")


class Feed:
    """Follows the feed at whichever server there is: the ids of the turns that have ended."""

    def __init__(self, servers: list[RestartedServer], cursor: str) -> None:
        self._servers = servers
        self._cursor = cursor
        self.ended: list[str] = []
        self.resets = 0

    def run(self, is_over: threading.Event) -> None:
        for number in itertools.count():
            if is_over.is_set():
                return
            address = self._servers[number % len(self._servers)].address
            # What is cut off is read again.
            with suppress(OSError, HTTPException, AssertionError, ValueError):
                if address is not None:
                    headers = {"last-event-id": self._cursor}
                    with closing(Stream(address, "/v1/feed", headers)) as stream:
                        self._read(stream)
            time.sleep(0.02)

    def _read(self, stream: Stream) -> None:
        """Read until its server ends."""
        while True:
            name, kind, data = stream.read_until(b"data: ").split(b"\n")[-4:-1]
            event = json.loads(data.removeprefix(b"data: "))
            assert kind.decode() == f"event: {event['type']}"
            if event["type"] == "turn.ended":
                self.ended.append(event["response_id"])
            self.resets += event["type"] == "feed.reset"
            self._cursor = name.removeprefix(b"id: ").decode()


class Restarts:
    """Stops and kills servers in turn, in all the ways there are, and starts them again."""

    def __init__(self, servers: list[RestartedServer], seed: int) -> None:
        self._servers = servers
        self._random = random.Random(seed)
        #: What was done, for whoever looks for the cause of a failure.
        self.deeds: list[str] = []
        self.deaths = 0

    def restart(self) -> None:
        """End one server in one way, and start it again some time later."""
        number = self._random.randrange(len(self._servers))
        server, ways = self._servers[number], ["stop", "stop at once", "stop and interrupt"]
        if self.deaths < MAX_DEATHS - 1:
            ways += ["kill", "stop and kill", "kill while it starts", "stop while it starts"]
        time.sleep(self._random.uniform(0, 0.8))
        way = self._random.choice(ways)
        pause = self._random.uniform(0, 0.6)
        self.deeds.append(f"{way} {number} {pause:.3f}")
        first = signal.SIGKILL if way == "kill" else signal.SIGTERM
        server.send(first)
        if way in {"stop and kill", "stop and interrupt"}:
            time.sleep(pause)
            server.send(signal.SIGKILL if way == "stop and kill" else signal.SIGINT)
        self._note(server.wait())
        time.sleep(self._random.uniform(0, 0.3))
        server.start(self._random.choice([0, 0.2, 10]))
        if way.endswith("while it starts"):
            time.sleep(pause)
            server.send(signal.SIGKILL if way.startswith("kill") else signal.SIGTERM)
            self._note(server.wait())
            server.start(10)

    def _note(self, code: int) -> None:
        # A signal that comes before a program handles it kills the program, and Ctrl-C cuts short
        # what it does last.
        killed = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGINT}
        assert code in {0, *killed}, code
        self.deaths += code != 0


class Program:
    """A program with the store open beside the servers, which reads all turns again and again."""

    def __init__(self, store: str, clients: list[Client]) -> None:
        self._store = store
        self._clients = clients
        self.ends: dict[str, str] = {}

    def run(self, is_over: threading.Event) -> None:
        asyncio.run(self._read(is_over))

    async def _read(self, is_over: threading.Event) -> None:
        async with open_engine(Settings(store=self._store)) as engine:
            reader = engine.service.reader
            while not is_over.is_set():
                for client in self._clients:
                    for name in list(client.turns):
                        if name in self.ends:
                            continue
                        try:
                            response = await reader.response(DEFAULT_TENANT, name)
                        except NotFoundError:
                            self.ends[name] = "deleted"
                            continue
                        if response.end is not None:
                            self.ends[name] = response.status
                await asyncio.sleep(0.02)


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return empty_database(tmp_path)
    return f"sqlite:{tmp_path / 'shared.db'}"


def servers_on(store: str, folder: Path, base_url: str, count: int) -> list[RestartedServer]:
    servers = []
    for number in range(count):
        home = folder / f"server{number}"
        home.mkdir()
        servers.append(RestartedServer(home, base_url, store))
    return servers


def poll(look: Callable[[], Any], what: Callable[[], object]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + 2 * TIMEOUT
    while not look():
        assert time.monotonic() < until, what()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("seed", range(max(1, examples(1) // 4)))
def test_turns_are_answered_once_whenever_servers_are_stopped_or_killed(
    store: str, tmp_path: Path, count: int, seed: int
) -> None:
    with UpstreamThread() as thread, ExitStack() as opened:
        upstream = Upstream(thread, random.Random(seed))
        servers = servers_on(store, tmp_path, upstream.base_url, count)
        pool = opened.enter_context(ThreadPoolExecutor(5))
        for one in servers:
            one.start(10)
            opened.callback(one.kill)
        wait_until_listening(servers)
        are_sent, is_over = threading.Event(), threading.Event()
        clients = [Client(number, servers, seed, is_over) for number in range(3)]
        feed, program = Feed(servers, cursor_of(servers)), Program(store, clients)
        restarts = Restarts(servers, seed)
        # What still runs after a failure ends with the servers.
        opened.callback(is_over.set)
        opened.callback(are_sent.set)
        sending = [pool.submit(one.run, are_sent) for one in clients]
        reading = [pool.submit(one.run, is_over) for one in (feed, program)]
        for _ in range(RESTARTS):
            restarts.restart()
            for work in (*sending, *reading):
                assert not work.done() or work.result()
        are_sent.set()
        for work in sending:
            work.result(TIMEOUT)
        wait_until_listening(servers)
        names = {name for one in clients for name in one.turns}
        poll(lambda: set(program.ends) == names, lambda: names - set(program.ends))
        for client in clients:
            names -= client.deleted
        poll(lambda: set(feed.ended) >= names, lambda: names - set(feed.ended))
        assert not feed.resets
        for client in clients:
            check(servers, upstream, client, restarts)
        addresses = [one.address for one in servers if one.address is not None]
        assert sorted(listed_at(addresses[-1])) == sorted(names), restarts.deeds
        assert not upstream.doubled, restarts.deeds
        is_over.set()
        for one in servers:
            one.send(signal.SIGTERM)
            assert one.wait() == 0
        for work in reading:
            work.result(TIMEOUT)


def wait_until_listening(servers: list[RestartedServer]) -> None:
    poll(lambda: all(one.address for one in servers), lambda: "a server does not listen")


def cursor_of(servers: list[RestartedServer]) -> str:
    address = servers[0].address
    assert address is not None
    return str(address.get("/v1/chats?feed_cursor=true").json["feed_cursor"])


def check(
    servers: list[RestartedServer], upstream: Upstream, client: Client, restarts: Restarts
) -> None:
    """Each turn of a client is there, with its answer, unless the client has taken it back."""
    address = servers[0].address
    assert address is not None
    for name, questions in client.turns.items():
        answer = address.get(f"/v1/responses/{name}")
        if name in client.deleted:
            assert answer.status == 404, restarts.deeds
            continue
        shown = answer.json
        expected = client.cancelled.get(name, "completed")
        assert shown["status"] == expected, (shown["error"], restarts.deeds)
        if shown["status"] == "completed":
            said = [part["text"] for item in shown["output"] for part in item["content"]]
            assert said == [" ".join(questions)], restarts.deeds
            asked = upstream.count(questions[-1])
            assert 1 <= asked <= 1 + len(restarts.deeds), (questions, restarts.deeds)


def listed_at(address: Address) -> list[str]:
    """The ids of all turns."""
    names: list[str] = []
    after = ""
    while page := address.get(f"/v1/responses?limit=100{after}").json["data"]:
        names += [one["id"] for one in page]
        after = f"&after={names[-1]}"
    return names
