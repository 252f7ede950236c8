"""Stream relays: what they write, and when they leave it to the reader."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import pytest

from antiphon.api.http.asgi_responses import WRITER, KeepAlive
from antiphon.api.http.stream_relay import StreamRelay
from antiphon.core.events import Event, TextDelta
from antiphon.models.scripted import ScriptedModel, say
from support.http_server import serving


class Writer:
    """A ``ChunkWriter`` that keeps what it gets."""

    def __init__(self) -> None:
        self.is_writable = True
        self.written: list[bytes] = []

    def write_chunk(self, body: bytes) -> None:
        self.written.append(body)


def encode(events: Sequence[Event]) -> bytes:
    return "".join(event.text for event in events if isinstance(event, TextDelta)).encode()


async def send(message: Any) -> None:
    raise AssertionError("nothing is sent")


def relay_of(writer: Writer | None, make: Any = encode) -> StreamRelay:
    return StreamRelay({} if writer is None else {WRITER: writer}, make)


def test_relay_writes_once_it_is_open() -> None:
    relay = relay_of(writer := Writer())
    assert not relay([TextDelta(0, "a")])
    relay.open(KeepAlive(send, lambda: b""))
    assert relay([TextDelta(0, "b"), TextDelta(0, "c")])
    assert relay([])
    assert relay([TextDelta(0, "\u2028")])
    writer.is_writable = False
    assert not relay([TextDelta(0, "d")])
    assert writer.written == [b"bc", rb"\u2028"]


def test_events_are_the_readers_without_a_writer_or_where_encoding_fails() -> None:
    relay = relay_of(None)
    relay.open(KeepAlive(send, lambda: b""))
    assert not relay([TextDelta(0, "a")])

    def fail(events: Sequence[Event]) -> bytes:
        raise ValueError

    relay = relay_of(writer := Writer(), fail)
    relay.open(KeepAlive(send, lambda: b""))
    assert not relay([TextDelta(0, "a")])
    assert not writer.written


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
def test_slow_reader_gets_the_whole_stream(path: str) -> None:
    """More than all buffers hold, in pieces that come while the client reads nothing."""
    parts = [f"{number}" * 200 for number in range(4_000)]
    asked: Any = "Hi" if "responses" in path else [{"role": "user", "content": "Hi"}]
    field = "input" if "responses" in path else "messages"
    body = {"stream": True, "model": "scripted", field: asked}
    with serving(ScriptedModel([say(*parts)])) as server, closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", server.port))
        raw = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        slow.sendall(head.encode() + raw)
        # Nobody else waits for this one.
        assert server.get("/v1/models").status == 200
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        lines = [line[6:] for line in answer.read().splitlines() if line.startswith(b"data: {")]
    events = [json.loads(line) for line in lines]
    if "responses" in path:
        texts = [event["delta"] for event in events if event["type"].endswith("output_text.delta")]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
    else:
        texts = [event["choices"][0]["delta"].get("content", "") for event in events]
    assert "".join(texts) == "".join(parts)
