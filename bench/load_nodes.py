"""Load on several nodes: each request of a script goes to the next one, as through a balancer; or
all of a script go to one, as if each node were alone."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import cast

import httptools

from bench.load import BenchError, Connection, LoadStats, Script


class _Link(asyncio.Protocol):
    """A connection to one node, whose replies go to the script's connection."""

    def __init__(self, owner: RoundRobinConnection) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._owner.fail(error)

    def on_body(self, body: bytes) -> None:
        self._owner.receive(body)

    def on_message_complete(self) -> None:
        self._owner.complete(self._parser.get_status_code())


class RoundRobinConnection(Connection):
    """One script over a link to each node; ``ports`` and ``stays`` are set by ``over``."""

    ports: Sequence[int] = ()
    stays = False
    _made = itertools.count()

    def __init__(self, script: Script, tally: LoadStats, mark: bytes | None) -> None:
        super().__init__(script, tally, mark)
        self._links: list[_Link] = []
        self._next = next(self._made)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for port in self.ports:
            made = await loop.create_connection(lambda: _Link(self), "127.0.0.1", port)
            self._links.append(made[1])
        self.ready.set_result(None)

    def close(self) -> None:
        super().close()
        for link in self._links:
            if link.transport is not None:
                link.transport.close()

    def receive(self, body: bytes) -> None:
        self._receive(body)

    def complete(self, status: int) -> None:
        if status in {200, 202}:
            self._complete()
        else:
            self._fail(BenchError(f"status {status}: {b''.join(self._pieces)[:500]!r}"))

    def fail(self, error: Exception) -> None:
        self._fail(error)

    def _write(self, request: bytes) -> None:
        if not self.stays:
            self._next += 1
        transport = self._links[self._next % len(self._links)].transport
        assert transport is not None
        transport.write(request)


def over(ports: Sequence[int], *, stays: bool = False) -> type[RoundRobinConnection]:
    """The kind of connection that asks these nodes in turn; ``stays``: each asks one of them."""
    return type("RoundRobin", (RoundRobinConnection,), {"ports": tuple(ports), "stays": stays})
