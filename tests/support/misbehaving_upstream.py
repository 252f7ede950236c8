"""A real HTTP server that behaves as upstreams do on a bad day.

    async with MisbehavingUpstream() as upstream:
        upstream.then(refuse(429, headers={"Retry-After": "1"}), completion("Hello."))
        model = ChatCompletionsModel(info, upstream.base_url)
        ...
        assert upstream.requests[1].json["messages"] == [...]

It listens on a free port of 127.0.0.1, in the event loop of the test, and answers each
request by the next behaviour in its queue, or well if there is none: with a completion
that says "Hello." or a stream of it, whichever was asked for. What it speaks besides
chat completions is in ``responses_upstream``.

A behaviour is made of moves: bytes are written as they are, an ``asyncio.Event`` is
waited for, ``HANG`` waits until the client leaves, ``CUT`` breaks the connection, ``CLOSE``
ends it properly. After
each write the client gets the chance to read it on its own, so nothing here sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from support.local_server import LocalServer


class Signal(enum.Enum):
    """What a behaviour can do besides writing."""

    HANG = "hang"
    CUT = "cut"
    CLOSE = "close"


HANG, CUT, CLOSE = Signal.HANG, Signal.CUT, Signal.CLOSE
Move: TypeAlias = bytes | asyncio.Event | Signal
Behaviour: TypeAlias = list[Move]


@dataclass
class Request:
    """What a client sent. ``gone`` is set if it left before it had its answer."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int = 0
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def answer(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None, size: int | None = None
) -> Behaviour:
    """A whole answer; in writes of ``size`` bytes if that is given."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    fields.update(headers or {})
    return _pieces(_head(status, fields) + body, size)


def completion(content: str | None = "Hello.", **message: Any) -> Behaviour:
    """A good completion; ``message`` are further fields of its message."""
    reason = "tool_calls" if "tool_calls" in message else "stop"
    message_body = {"role": "assistant", "content": content, **message}
    return json_completion(
        {"choices": [{"index": 0, "message": message_body, "finish_reason": reason}]}
    )


def json_completion(fields: dict[str, Any]) -> Behaviour:
    """A completion of these fields, and of tokens."""
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return answer(json.dumps({"object": "chat.completion", "usage": usage, **fields}).encode())


def refuse(status: int, error: Any = None, headers: dict[str, str] | None = None) -> Behaviour:
    """An HTTP error; ``error`` is the body's JSON, OpenAI's shape by default."""
    body = {"error": {"message": "No."}} if error is None else error
    return answer(json.dumps(body).encode(), status, headers)


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def usage(prompt: int = 5, completion: int = 2) -> dict[str, Any]:
    """The chunk that comes last, with no choices."""
    counted = {"prompt_tokens": prompt, "completion_tokens": completion}
    return {"choices": [], "usage": counted}


DONE = b"[DONE]"
_END = b"0\r\n\r\n"


def events(*data: dict[str, Any] | bytes, newline: bytes = b"\n") -> list[bytes]:
    """Server-sent events of these payloads."""
    return [
        b"data: " + (one if isinstance(one, bytes) else json.dumps(one).encode()) + newline * 2
        for one in data
    ]


def stream(
    *parts: bytes | asyncio.Event, end: Signal | None = None, size: int | None = None
) -> Behaviour:
    """A chunked event stream, a write for each part, or writes of ``size`` bytes.

    ``end``: how it ends if not well.
    """
    fields = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    moves: Behaviour = _pieces(_head(200, fields), size)
    for part in parts:
        if isinstance(part, asyncio.Event):
            moves.append(part)
        else:
            moves += _pieces(b"%x\r\n%s\r\n" % (len(part), part), size)
    if end is None:
        last = moves[-1]
        moves[-1:] = [last + _END] if isinstance(last, bytes) else [last, _END]
    else:
        moves.append(end)
    return moves


def hello_answer(**options: Any) -> Behaviour:
    """A good stream that says "Hello."."""
    message_body = (chunk(role="assistant", content=""), chunk(content="Hel"), chunk(content="lo."))
    return stream(*events(*message_body, chunk("stop"), usage(), DONE), **options)


def _head(status: int, fields: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode()


def _pieces(data: bytes, size: int | None) -> Behaviour:
    if size is None:
        return [data]
    return [data[at : at + size] for at in range(0, len(data), size)]


class MisbehavingUpstream(LocalServer):
    """The server. ``requests`` are those it got, ``connections`` counts those it accepted.

    ``greeting`` is written before anything was asked. With ``tls`` it speaks that.
    """

    def __init__(self, greeting: bytes = b"", *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self._greeting = greeting
        #: What is answered where no behaviour is queued.
        self.default_answer: Callable[[Request], Behaviour] = _default_answer
        self.requests: list[Request] = []
        self.connections = 0
        self._queue: deque[Behaviour] = deque()
        self._arrived = asyncio.Event()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def then(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, one after another."""
        self._queue.extend(behaviours)

    async def request(self, number: int) -> Request:
        """A request by its number from 0, as soon as it has come."""
        while len(self.requests) <= number:
            self._arrived.clear()
            await self._arrived.wait()
        return self.requests[number]

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        number, ahead = self.connections, b""
        writer.write(self._greeting)
        with contextlib.suppress(_CutError):
            while (request := await self._read(reader, ahead)) is not None:
                request.connection = number
                self.requests.append(request)
                self._arrived.set()
                ahead = await self._behave(request, reader, writer)

    async def _read(self, reader: asyncio.StreamReader, ahead: bytes) -> Request | None:
        try:
            head = (ahead + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return None
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, path, headers, body)

    async def _behave(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Make all moves, unless the client leaves; gives what it has sent of its next request."""
        moves = self._queue.popleft() if self._queue else self.default_answer(request)
        ahead = asyncio.create_task(_peek(reader))
        tasks: set[asyncio.Task[Any]] = {ahead}
        try:
            for move in moves:
                doing = asyncio.create_task(_do(move, writer))
                tasks.add(doing)
                await asyncio.wait({doing, ahead}, return_when=asyncio.FIRST_COMPLETED)
                if not doing.done() and ahead.result() == b"":
                    raise ConnectionResetError
                await doing
        except ConnectionError:
            request.disconnected.set()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return b"" if ahead.cancelled() else ahead.result()


class _CutError(Exception):
    """We broke the connection ourselves."""


def models(*names: str) -> Behaviour:
    """A list of models."""
    data = [{"id": name, "object": "model"} for name in names]
    return answer(json.dumps({"object": "list", "data": data}).encode())


def _default_answer(request: Request) -> Behaviour:
    if request.path.endswith("/models"):
        return models("only")
    return hello_answer() if request.json.get("stream") else completion()


async def _peek(reader: asyncio.StreamReader) -> bytes:
    """The first byte of what the client sends next; nothing if it leaves."""
    try:
        return await reader.read(1)
    except ConnectionError:
        return b""


async def _do(move: Move, writer: asyncio.StreamWriter) -> None:
    match move:
        case Signal.HANG:
            await asyncio.Event().wait()
        case Signal.CUT:
            writer.transport.abort()
            raise _CutError
        case Signal.CLOSE:
            writer.close()
            raise _CutError
        case asyncio.Event():
            await move.wait()
        case _:
            writer.write(move)
            await writer.drain()
            # Two turns of the loop: one for the client to see the bytes, one to read them.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
