"""The model that answers a page of the documentation: a real endpoint, with a page's own replies.

``tests/docs/<page>.toml`` holds them, in the order in which the page asks:

    stdin = "y"                             # what is typed at input()

    [[reply]]
    contained = "weather"                       # optional: only to a message that holds this
    calls = [{ name = "get_weather", arguments = { city = "Tokyo" } }]

    [[reply]]
    text = "Sunny, 22 °C."
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool call; its id is made of its place unless given."""

    name: str
    arguments: dict[str, Any] = {}
    id: str | None = None


class CannedReply(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one request gets. ``status`` other than 200: an error that says ``text``.

    ``usage`` is input, output and cached tokens. ``hang``: after the words of a stream, or
    instead of a whole answer, nothing more ever comes.
    """

    text: str = ""
    calls: tuple[Call, ...] = ()
    contained: str | None = None
    status: int = 200
    headers: dict[str, str] = {}
    finish: str | None = None
    usage: tuple[int, int, int] = (12, 7, 0)
    hang: bool = False


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page needs from outside, and what it may write to standard error."""

    reply: tuple[CannedReply, ...] = ()
    stdin: str = ""
    stderr: tuple[str, ...] = ()


def read_script(path: Path) -> Script:
    """A page's file; an empty script where there is none."""
    if not path.is_file():
        return Script()
    return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Script)


class PageUpstream:
    """A running endpoint. ``faults`` says what was asked that no reply is for."""

    def __init__(self, script: Script) -> None:
        self.remaining = list(script.reply)
        self.errors: list[str] = []
        self.base_url = ""
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._request_count = 0

    def answer(self, messages: list[dict[str, Any]]) -> tuple[int, CannedReply]:
        """The number of the request, and the first reply left that is meant for it."""
        text = json.dumps(messages[-1].get("content"), ensure_ascii=False)
        with self._lock:
            self._request_count += 1
            for place, canned in enumerate(self.remaining):
                if canned.contained is None or canned.contained in text:
                    return self._request_count, self.remaining.pop(place)
            self.errors.append(f"no reply is left for the message {text[:200]}")
        return self._request_count, CannedReply("There is no reply for this.", status=400)


@contextmanager
def upstream(script: Script) -> Iterator[PageUpstream]:
    """An endpoint on a free port for as long as the context lasts."""
    state = PageUpstream(script)

    class Handler(_Handler):
        upstream = state

    class Server(ThreadingHTTPServer):
        # Requests that hang are let go below, and waited for.
        daemon_threads = False

    with Server(("127.0.0.1", 0), Handler) as server:
        state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield state
        finally:
            state.stopping.set()
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    upstream: PageUpstream

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        number, canned = self.upstream.answer(body["messages"])
        if canned.hang:
            self._hang(canned)
        elif canned.status != 200:
            error = {"error": {"message": canned.text, "code": None}}
            self._send(canned, "application/json", json.dumps(error).encode())
        elif body.get("stream"):
            chunks = [json.dumps(one).encode() for one in _chunks(canned, number)]
            lines = b"".join(b"data: " + one + b"\n\n" for one in (*chunks, b"[DONE]"))
            self._send(canned, "text/event-stream", lines)
        else:
            self._send(canned, "application/json", json.dumps(_completion(canned, number)).encode())

    def _send(self, canned: CannedReply, kind: str, data: bytes) -> None:
        self.send_response(canned.status)
        for name, value in canned.headers.items():
            self.send_header(name, value)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True

    def _hang(self, canned: CannedReply) -> None:
        self.close_connection = True
        if canned.text:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for one in _deltas(canned, 0):
                self.wfile.write(b"data: " + json.dumps(one).encode() + b"\n\n")
        self.upstream.stopping.wait()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _calls(canned: CannedReply, number: int) -> list[dict[str, Any]]:
    return [
        {
            "index": place,
            "id": call.id or f"call_{number}_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
        }
        for place, call in enumerate(canned.calls)
    ]


def _usage(canned: CannedReply) -> dict[str, Any]:
    prompt, completion, cached = canned.usage
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _finish(canned: CannedReply) -> str:
    return canned.finish or ("tool_calls" if canned.calls else "stop")


def _completion(canned: CannedReply, number: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": canned.text or None}
    if canned.calls:
        message["tool_calls"] = _calls(canned, number)
    choice = {"index": 0, "message": message, "finish_reason": _finish(canned)}
    return {"id": "c", "object": "chat.completion", "choices": [choice], "usage": _usage(canned)}


def _deltas(canned: CannedReply, number: int) -> Iterator[dict[str, Any]]:
    words = canned.text.split(" ") if canned.text else []
    deltas: list[dict[str, Any]] = [{"content": word + " "} for word in words[:-1]]
    deltas += [{"content": word} for word in words[-1:]]
    deltas += [{"tool_calls": [call]} for call in _calls(canned, number)]
    for delta in deltas:
        yield {**_CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _chunks(canned: CannedReply, number: int) -> Iterator[dict[str, Any]]:
    yield from _deltas(canned, number)
    yield {**_CHUNK, "choices": [{"index": 0, "delta": {}, "finish_reason": _finish(canned)}]}
    yield {**_CHUNK, "choices": [], "usage": _usage(canned)}


_CHUNK = {"id": "c", "object": "chat.completion.chunk"}
