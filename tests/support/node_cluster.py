"""Node cluster: several server processes on one store behind a round-robin proxy, and the upstream.

The upstream is steered by what it is asked: see ``SteeredUpstream``.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from antiphon.bootstrap import open_engine
from antiphon.core.api_keys import hash_api_key, new_api_key, new_api_key_id
from antiphon.settings import Settings
from antiphon.turn.store_protocols import ApiKey
from support.http_server import TIMEOUT, Address, ServerProcess
from support.misbehaving_upstream import HANG, Behaviour, Request
from support.scenario import DONE, UpstreamThread, call, end, stream_of, text, whole


class SteeredUpstream:
    """Answers by the last message: what comes behind a gate's name in it waits for that gate.

    ``count to 3 gate:a`` says one word for each number; before the last one it waits until the
    gate ``a`` is opened. ``hang`` says a word and never ends. ``use files__add`` calls that tool,
    with the JSON object at the end of the message, if it has one. All else is answered with how
    many messages there were.
    """

    def __init__(self, thread: UpstreamThread) -> None:
        self._thread = thread
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        thread.upstream.default_answer = self._answer

    @property
    def base_url(self) -> str:
        return self._thread.upstream.base_url

    @property
    def requests(self) -> list[Request]:
        return list(self._thread.upstream.requests)

    def requests_of(self, question: str) -> list[Request]:
        """The requests whose last message this is."""
        return [one for one in self.requests if _last_message(one) == question]

    def open(self, gate: str) -> None:
        self._thread.loop.call_soon_threadsafe(self._gates[gate].set)

    def wait_until_left(self, question: str) -> None:
        """Wait until the client of a request has left it."""
        (request,) = self.requests_of(question)
        waiting = asyncio.run_coroutine_threadsafe(request.disconnected.wait(), self._thread.loop)
        waiting.result(TIMEOUT)

    def _answer(self, request: Request) -> Behaviour:
        if request.method != "POST":
            return stream_of(status=404)
        question = _last_message(request)
        words = question.split()
        if words[:1] == ["use"]:
            given = question[question.index("{") :] if "{" in question else '{"a":1,"b":2}'
            made = {"index": 0, "id": "call_1", "type": "function"}
            made["function"] = {"name": words[1], "arguments": given}
            return stream_of(call(made), end("tool_calls"), DONE)
        if "hang" in words:
            return stream_of(text("Well"), HANG)
        if "count" in words:
            numbers = range(int(words[words.index("to") + 1]))
            parts = [text(f" {number}") for number in numbers]
            gates = [self._gates[one[5:]] for one in words if one.startswith("gate:")]
            return stream_of(*parts[:-1], *gates, parts[-1], end(), DONE)
        said = f"{len(request.json['messages'])} messages"
        if request.json.get("stream"):
            return stream_of(text(said), end(), DONE)
        return whole({"role": "assistant", "content": said})


def _last_message(request: Request) -> str:
    if request.method != "POST":
        return ""
    content = request.json["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content[0]["text"])


class RoundRobinProxy(Address):
    """A plain proxy: each new connection goes to the next server, byte by byte."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = itertools.cycle(ports)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(TIMEOUT)
        super().__init__(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        tasks = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", next(self._ports))
        await asyncio.gather(_copy(reader, back_writer), _copy(back_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        with suppress(OSError):
            while piece := await reader.read(2**16):
                writer.write(piece)
                await writer.drain()
    finally:
        writer.close()


class NodeCluster:
    """The nodes, the proxy before them and the upstream behind them."""

    def __init__(
        self,
        nodes: Sequence[ServerProcess],
        proxy: RoundRobinProxy,
        upstream: SteeredUpstream,
        store: str,
    ) -> None:
        self.nodes = nodes
        self.store = store
        self.proxy = proxy
        self.upstream = upstream

    def pair(self, number: int) -> tuple[ServerProcess, ServerProcess]:
        """A node, and another one: other ones for each number."""
        count = len(self.nodes)
        first = number % count
        other = (first + 1 + number // count % (count - 1)) % count
        return self.nodes[first], self.nodes[other]

    def make_key(self, tenant: str) -> dict[str, str]:
        """The headers of someone with a new key."""
        text, key = new_api_key(), ApiKey(new_api_key_id(), tenant, time.time())

        async def add() -> None:
            async with open_engine(Settings(store=self.store)) as engine:
                await engine.stores.api_keys.add(key, hash_api_key(text.encode()) or b"")

        # In a thread: the test may have a loop of its own.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, add()).result(TIMEOUT)
        return {"authorization": f"Bearer {text}"}

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Ask until it is so."""
        deadline = time.monotonic() + TIMEOUT
        while not is_so():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def log(self) -> str:
        """Everything that the nodes have logged."""
        return "".join(one.log_text() for one in self.nodes)


@contextmanager
def node_cluster(
    home: Path,
    count: int = 2,
    *,
    store: str | None = None,
    settings: str = "",
    other_ways: Mapping[int, str] = {},
) -> Iterator[NodeCluster]:
    """Nodes on one store: that of the URI, or a SQLite file in ``home``.

    ``other_ways`` are URIs by which some nodes reach the same store, by their numbers.
    """
    uri = store or f"sqlite:{home / 'shared.db'}"
    with ExitStack() as opened:
        upstream = SteeredUpstream(opened.enter_context(UpstreamThread()))
        nodes = []
        for number in range(count):
            folder = home / f"node{number}"
            folder.mkdir()
            way = other_ways.get(number, uri)
            node = ServerProcess(folder, upstream.base_url, store=way, settings=settings)
            nodes.append(opened.enter_context(node))
        proxy = RoundRobinProxy([one.port for one in nodes])
        opened.callback(proxy.close)
        yield NodeCluster(nodes, proxy, upstream, uri)


class Stream:
    """A stream that is being read."""

    def __init__(
        self,
        node: Address,
        path: str,
        headers: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
    ) -> None:
        self._connection = node.connect()
        data = None if body is None else json.dumps(body).encode()
        with ExitStack() as failed:
            failed.callback(self._connection.close)
            self._connection.request("POST" if body else "GET", path, data, headers or {})
            self._response = self._connection.getresponse()
            assert self._response.status == 200, self._response.read()
            failed.pop_all()

    def read_events(self, count: int) -> bytes:
        """The next so many events."""
        read = b""
        while read.count(b"\n\n") < count:
            read += self._response.readline()
        return read

    def read_until(self, text: bytes) -> bytes:
        """What comes up to the line with a text."""
        read = b""
        while text not in read:
            line = self._response.readline()
            assert line, read
            read += line
        return read

    def read_rest(self) -> bytes:
        try:
            return self._response.read()
        finally:
            self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()


def started(node: Address, question: str, key: dict[str, str] | None = None, **fields: Any) -> str:
    """A streamed turn that runs on this node, and whose client has left: its id."""
    body = {"input": question, "stream": True, **fields}
    stream = Stream(node, "/v1/responses", key, body)
    created = stream.read_events(1)
    stream.close()
    return str(json.loads(created.partition(b"data: ")[2])["response"]["id"])
