"""A chat completions endpoint that costs next to nothing: ``python -m bench.fake_upstream``.

Raw asyncio protocol, httptools and uvloop. All that is computed per request is the
proof of ``bench.history``. The request's model name chooses the stream:

    fake          20 chunks
    fake-200      200 chunks, each in a write and a loop turn of its own
    fake-200@5    200 chunks, one every 5 ms, as a real model would send them
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import re
import signal
from collections.abc import Sequence
from typing import cast

import httptools
import msgspec
import uvloop

from bench.history import History, reply_text, token

_DEFAULT_CHUNKS = 20
_JSON_HEAD = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_USAGE = b'{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30}'
_MODELS = (
    b'{"object":"list","data":[{"id":"fake","object":"model","created":0,"owned_by":"bench"}]}'
)
_ANSWER = (
    b'{"id":"chatcmpl-0","object":"chat.completion","created":1700000000,"model":"fake",'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":%b},"logprobs":null,'
    b'"finish_reason":"stop"}],"usage":%b}'
)
_CHUNK = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"fake","choices":[{"index":0,"delta":%b,"finish_reason":%b}]}\n\n'
)
_USAGE_CHUNK = (
    b'data: {"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,'
    b'"model":"fake","choices":[],"usage":%b}\n\n' % _USAGE
)
_DONE = b"data: [DONE]\n\n"


class _Part(msgspec.Struct):
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Request(msgspec.Struct):
    messages: list[_Message]
    model: str = "fake"
    stream: bool | None = False
    stream_options: _StreamOptions | None = None


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


def _proof(messages: Sequence[_Message]) -> str:
    history = History()
    for message in messages:
        content = message.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        history.add(message.role, content or "")
    return history.proof()


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _content(text: str) -> bytes:
    return _frame(_CHUNK % (b'{"content":%b}' % _encode(text), b"null"))


@functools.cache
def _plan(model: str, usage: bool) -> tuple[float, tuple[bytes, ...]]:
    """Seconds between chunks, and every frame after the first piece of text."""
    match = re.fullmatch(r"fake-(\d+)(?:@(\d+))?", model)
    chunks = int(match[1]) if match else _DEFAULT_CHUNKS
    pause = int(match[2]) / 1000 if match and match[2] else 0.0
    frames = [_content(token(index)) for index in range(1, chunks)]
    frames.append(_frame(_CHUNK % (b"{}", b'"stop"')))
    end = _frame(_DONE) + b"0\r\n\r\n"
    frames.append(_frame(_USAGE_CHUNK) + end if usage else end)
    return pause, tuple(frames)


class FakeUpstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._frames: Sequence[bytes] = ()
        self._next = 0
        self._pause = 0.0
        self._writable = True
        self._waiting = False
        self._open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open = False

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if self._parser.get_method() == b"GET":
            self._answer(200, _MODELS)
            return
        try:
            request = _decode(self._body)
        except msgspec.MsgspecError as error:
            self._answer(400, b'{"error":{"message":%b}}' % _encode(str(error)))
            return
        proof = _proof(request.messages)
        if request.stream:
            options = request.stream_options
            self._start(proof, *_plan(request.model, bool(options and options.include_usage)))
        else:
            self._answer(200, _ANSWER % (_encode(reply_text(proof)), _USAGE))

    def _answer(self, status: int, body: bytes) -> None:
        self._transport.write(_JSON_HEAD % (status, len(body)) + body)

    def _start(self, proof: str, pause: float, frames: Sequence[bytes]) -> None:
        self._frames, self._next, self._pause = frames, -1, pause
        role = _frame(_CHUNK % (b'{"role":"assistant","content":""}', b"null"))
        self._first = _content(proof)
        self._transport.write(_STREAM_HEAD + role)
        self._loop.call_soon(self._step)

    def _step(self) -> None:
        # uvloop sends what was written once per loop turn, so a turn of its own for
        # each chunk is what makes each chunk a packet of its own.
        if not self._open:
            return
        if not self._writable:
            self._waiting = True
            return
        self._transport.write(self._frames[self._next] if self._next >= 0 else self._first)
        self._next += 1
        if self._next == len(self._frames):
            return
        if self._pause:
            self._loop.call_later(self._pause, self._step)
        else:
            self._loop.call_soon(self._step)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._waiting:
            self._waiting = False
            self._loop.call_soon(self._step)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: FakeUpstream(loop), "127.0.0.1", port, backlog=1024)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="a fast fake chat completions endpoint")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
