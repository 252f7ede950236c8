"""The official ``openai`` client asks again where an answer was lost: nothing is doubled."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import ResponseInputItemParam

from antiphon.models.scripted import ScriptedModel
from support.http_server import TIMEOUT, Address, ThreadServer, serving

HI: ResponseInputItemParam = {"type": "message", "role": "user", "content": "Hi"}


class Lossy(Address):
    """A way to a server on which every other answer is lost, the first one too."""

    def __init__(self, listening: socket.socket, server: ThreadServer) -> None:
        super().__init__(listening.getsockname()[1])
        self.lost = 0
        self._listening = listening
        self._server = server

    def run(self) -> None:
        lose = True
        while True:
            try:
                came, _ = self._listening.accept()
            except OSError:
                return
            with came:
                came.settimeout(TIMEOUT)
                request = _request(came)
                with self._server.socket() as there:
                    there.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    answer = b"".join(iter(lambda: there.recv(65536), b""))
                if lose:
                    self.lost += 1
                else:
                    came.sendall(answer)
                lose = not lose


def _request(came: socket.socket) -> bytes:
    """A request, read to its end."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += came.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        int(line.partition(b":")[2])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length:")
    ]
    while lengths and len(body) < lengths[0]:
        body += came.recv(65536)
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@contextmanager
def lossy(server: ThreadServer) -> Iterator[Lossy]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        way = Lossy(listening, server)
        thread = threading.Thread(target=way.run)
        thread.start()
        try:
            yield way
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT)


def asking(way: Address, retries: int = 2) -> OpenAI:
    client = OpenAI(base_url=way.base_url, api_key="none", timeout=TIMEOUT, max_retries=retries)
    # With this it makes up a key for each request, and sends it again when it retries.
    client._idempotency_header = "Idempotency-Key"
    return client


def test_a_repeated_request_is_done_once() -> None:
    with serving(ScriptedModel()) as server, lossy(server) as way, asking(way) as client:
        talk = client.conversations.create(items=[HI], metadata={"topic": "x"})
        added = client.conversations.items.create(talk.id, items=[HI, HI])
        changed = client.conversations.update(talk.id, metadata={"topic": "y"})
        turn = client.responses.create(input="Who?", conversation=talk.id)
        assert way.lost == 4
        with asking(server) as sure:
            (one,) = server.get("/v1/conversations").json["data"]
            assert (one["id"], changed.id) == (talk.id, talk.id)
            items = list(sure.conversations.items.list(talk.id, order="asc"))
            assert len(items) == 5
            assert [item.id for item in items[1:3]] == [item.id for item in added.data]
            assert items[-1].id == turn.output[0].id


@pytest.mark.parametrize("header", ["Idempotency-Key", "idempotency-key"])
async def test_two_at_once_with_one_key(header: str) -> None:

    with serving(ScriptedModel()) as server:
        async with AsyncOpenAI(base_url=server.base_url, api_key="none") as client:
            key = {header: "order-17"}
            made = await asyncio.gather(
                *[client.conversations.create(items=[HI], extra_headers=key) for _ in range(2)]
            )
            assert made[0] == made[1]
            key = {header: "order-18"}
            add = client.conversations.items.create
            added = await asyncio.gather(
                *[add(made[0].id, items=[HI], extra_headers=key) for _ in range(2)]
            )
            assert added[0] == added[1]
            assert len([item async for item in client.conversations.items.list(made[0].id)]) == 2
