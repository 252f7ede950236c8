"""A chat completions upstream that answers from a script, and programs that talk to it.

    with replaying("Hello.", called("get_weather", location="Tokyo")) as upstream:
        ran = run_example("chat", home, upstream)
        assert upstream.shown(0) == [...]

Streams come in small pieces: text word by word, a call's arguments in two halves.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

ROOT = Path(__file__).parents[2]
SEEDS = Path(__file__).parent / "seeds"
#: Whole conversations, as messages arrays that were printed.
DIALOGUES = ["first_chat", "login_ticket", "receipt_refund"]

#: What ends an example's lines where several run.
END = "-- end --"
#: What an upstream says: a text, or a chat completions message.
ReplyBody: TypeAlias = str | dict[str, Any]


def tool_call_reply(
    tool: str, text: str | None = "", /, *, call_id: str = "call_1", **arguments: Any
) -> dict[str, Any]:
    """A message that calls one tool."""
    function = {"name": tool, "arguments": json.dumps(arguments)}
    call = {"id": call_id, "type": "function", "function": function}
    return {"role": "assistant", "content": text, "tool_calls": [call]}


class ReplayUpstream:
    """Answers one request after another, and one too many by an error.

    ``requests`` are their bodies.
    """

    def __init__(self, port: int, replies: Sequence[ReplyBody]) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.requests: list[dict[str, Any]] = []
        self._replies = list(replies)
        self._lock = threading.Lock()

    def next_reply(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """The next message of the script; None where there is none left."""
        with self._lock:
            self.requests.append(request)
            said = self._replies.pop(0) if self._replies else None
        return {"role": "assistant", "content": said} if isinstance(said, str) else said

    @property
    def unused_replies(self) -> int:
        """How many replies nobody has asked for."""
        return len(self._replies)

    def sent_messages(self, number: int = -1) -> list[dict[str, Any]]:
        """The messages of a request, as ``plain`` has them."""
        return normalize_messages(self.requests[number]["messages"])


class _Server(ThreadingHTTPServer):
    script: ReplayUpstream


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = self.server.script.next_reply(body)
        if message is None:
            # A status that nobody asks again after.
            self._answer(400, {"error": {"message": "The script is over."}})
        elif message.get("error"):
            self._answer(400, message)
        elif body.get("stream"):
            self._stream(message)
        else:
            choice = {"index": 0, "message": message, "finish_reason": _finish(message)}
            self._answer(200, {"object": "chat.completion", "choices": [choice]})

    def _stream(self, message: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for delta in _deltas(message):
            self._chunk({"delta": delta, "finish_reason": None})
        self.close_connection = True
        if message.get("hangs"):
            # Returns when the client leaves.
            with contextlib.suppress(ConnectionError):
                self.rfile.read(1)
            return
        self._chunk({"delta": {}, "finish_reason": _finish(message)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _chunk(self, choice: dict[str, Any]) -> None:
        chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _finish(message: dict[str, Any]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    words = (message["content"] or "").split(" ")
    for place, word in enumerate(words):
        piece = word if place == 0 else f" {word}"
        if piece:
            yield {"content": piece}
    for index, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        begun = {"name": call["function"]["name"], "arguments": arguments[:half]}
        yield {
            "tool_calls": [
                {"index": index, "id": call["id"], "type": "function", "function": begun}
            ]
        }
        rest = {"index": index, "function": {"arguments": arguments[half:]}}
        yield {"tool_calls": [rest]}


@contextlib.contextmanager
def replay_upstream(*replies: ReplyBody) -> Iterator[ReplayUpstream]:
    """A running upstream that says these, one after another."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.script = ReplayUpstream(server.server_port, replies)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.script
        finally:
            server.shutdown()
            thread.join()


def error_reply(message: str) -> dict[str, Any]:
    """A reply that is an error."""
    return {"error": {"message": message}}


def hanging_reply(text: str) -> dict[str, Any]:
    """A reply that begins so and never ends; only for a request that streams."""
    return {"role": "assistant", "content": text, "hangs": True}


def dialogue(name: str) -> list[dict[str, Any]]:
    """A messages array from ``tests/support/seeds``, as it was printed."""
    array: list[dict[str, Any]] = json.loads((SEEDS / f"{name}.json").read_text("utf-8"))
    return array


def roles(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [message["role"] for message in messages]


def user_turns(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def replies(messages: Sequence[dict[str, Any]]) -> list[ReplyBody]:
    """What a model has to say for this array to come about.

    That is what it said, and what is on a receipt where a tool asks a model to read it.
    """
    said: list[ReplyBody] = []
    for message in messages:
        if message["role"] == "assistant":
            said.append(message)
        elif message["role"] == "tool" and message["content"].startswith("{"):
            said.append(message["content"])
    return said


def normalize_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages without what says nothing: null keys, ``index`` and ``type`` of calls."""
    return [
        {
            key: [_normalize_call(call) for call in value] if key == "tool_calls" else value
            for key, value in message.items()
            if value is not None
        }
        for message in messages
    ]


def _normalize_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    # Arguments are compared as what they say: who writes them may space them differently.
    return {
        "id": call["id"],
        "name": function["name"],
        "arguments": json.loads(function["arguments"]),
    }


class ProgramResult(msgspec.Struct, frozen=True):
    """How a program ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def environment(home: Path, upstream: ReplayUpstream | None) -> dict[str, str]:
    """Everything a program needs, and nothing of the person's who runs the tests.

    Without an upstream the model is the embedded one.
    """
    environ = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "ANTIPHON_STORE": f"sqlite:{home / 'turns.db'}",
        # Warnings are errors here as in the tests themselves.
        "PYTHONWARNINGS": "error",
        "PYTHONPATH": str(ROOT),
    }
    if upstream is not None:
        environ |= {"ANTIPHON_BASE_URL": upstream.base_url, "ANTIPHON_MODEL": "grok-4"}
    return environ


def run_program(
    args: Sequence[str], home: Path, upstream: ReplayUpstream | None = None, stdin: str = ""
) -> ProgramResult:
    """Python with these arguments, in ``home``."""
    ran = subprocess.run(
        [sys.executable, *args],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=home,
        env=environment(home, upstream),
        timeout=60,
        check=False,
    )
    return ProgramResult(ran.returncode, ran.stdout, ran.stderr)


def run_examples(names: Sequence[str], home: Path) -> list[list[str]]:
    """The ``main`` of several, one after another in one process: the lines of each.

    On the embedded model, which takes a while to load.
    """
    lines = [f"from examples import {name}; {name}.main(); print({END!r})" for name in names]
    ran = run_program(["-c", "\n".join(lines)], home)
    assert (ran.code, ran.err) == (0, ""), ran
    return [one.strip().splitlines() for one in ran.out.split(END)[:-1]]


def run_example(
    name: str, home: Path, upstream: ReplayUpstream | None = None, *args: str, stdin: str = ""
) -> ProgramResult:
    """``python examples/NAME.py``, which has to end well."""
    ran = run_program([str(ROOT / "examples" / f"{name}.py"), *args], home, upstream, stdin)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran
