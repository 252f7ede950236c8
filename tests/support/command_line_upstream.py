"""A chat completions upstream for tests of the command line: does what the last message says.

The last user message is a command: ``hang`` sends three words and then nothing, ``break off`` ends
after as many, ``refuse`` is an error, ``last`` repeats the user message before, ``json`` names the
schema that is asked for, ``count N`` says so many words, ``say TEXT`` says the text in small
pieces, ``call NAME ARGUMENTS`` calls a tool, whose output is then repeated, and ``wait``, or a
tool's output that ends with " in wait", says "begun" and the rest once ``release`` is posted: what
follows ``wait``, if anything does. Until then, a tool's output that ends with " in doubt" is
refused, and behind one that ends with " in part" three words come and then the end. Everything
else is answered with the number of messages and the last one. Below ``/held`` it says which models
it has once ``release`` is posted.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

_USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "[image]") for part in content)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    released: ClassVar[threading.Event]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/release"):
            self.released.set()
            self._answer(200, {})
            return
        prompts = [_text_of(m["content"]) for m in body["messages"] if m["role"] == "user"]
        last = _text_of(body["messages"][-1]["content"] or "")
        is_doubted = last.endswith(" in doubt") and not self.released.is_set()
        if is_doubted or prompts[-1].removesuffix("[image]") == "refuse":
            self._answer(400, {"error": {"message": "I will not.", "code": "no"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        is_partial = last.endswith(" in part") and not self.released.is_set()
        if is_partial or prompts[-1] in {"hang", "break off"}:
            self._say("one two three")
            if prompts[-1] == "hang":
                self.released.wait(60)
            return
        self._speak(prompts, body)
        is_call = prompts[-1].startswith("call ") and body["messages"][-1]["role"] != "tool"
        self._chunk({"delta": {}, "finish_reason": "tool_calls" if is_call else "stop"}, _USAGE)
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _speak(self, prompts: list[str], body: Any) -> None:
        last = _text_of(body["messages"][-1]["content"])
        command, _, argument = prompts[-1].partition(" ")
        if last.startswith("wait") or last.endswith(" in wait"):
            self._say("begun, ")
            self.released.wait(60)
            rest = last.removeprefix("wait ") if last.startswith("wait ") else "and done"
            self._say(*(f"{word} " for word in rest.split()))
        elif body["messages"][-1]["role"] == "tool":
            self._say(f"the tool says {body['messages'][-1]['content']}")
        elif command == "call":
            self._call(*argument.split(maxsplit=1))
        elif command == "count":
            self._say_slowly([f"word{number} " for number in range(int(argument))])
        elif command == "say":
            self._say_slowly([argument[at : at + 3] for at in range(0, len(argument), 3)])
        elif prompts[-1] == "json":
            form = body.get("response_format", {}).get("json_schema", {})
            self._say(
                json.dumps({"schema_name": form.get("name"), "is_strict": form.get("strict")})
            )
        elif prompts[-1] == "last":
            self._say(prompts[-2])
        else:
            self._say(f"{len(body['messages'])} messages, ", f"the last: {prompts[-1]}")

    def _say_slowly(self, parts: Sequence[str]) -> None:
        """As a model: one after another, not in one piece."""
        for part in parts:
            self._say(part)
            self.released.wait(0.002)

    def do_GET(self) -> None:
        if "/held/" in self.path:
            self.released.wait(60)
        self._answer(200, {"object": "list", "data": [{"id": "far", "object": "model"}]})

    def _call(self, name: str, arguments: str) -> None:
        function = {"name": name, "arguments": arguments}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        self._chunk({"delta": {"tool_calls": [call]}, "finish_reason": None})

    def _say(self, *parts: str) -> None:
        for part in parts:
            self._chunk({"delta": {"content": part}, "finish_reason": None})

    def _chunk(self, choice: dict[str, Any], usage: dict[str, int] | None = None) -> None:
        choices = [{"index": 0, **choice}]
        chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "choices": choices}
        if usage is not None:
            chunk["usage"] = usage
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def upstream() -> Iterator[str]:
    """A running upstream's base URL."""

    class Handler(_Handler):
        released = threading.Event()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            Handler.released.set()
            server.shutdown()
            thread.join()


def release(url: str) -> None:
    """Have the upstream at ``url`` say the rest of what waits."""
    urllib.request.urlopen(urllib.request.Request(f"{url}/release", b"{}", method="POST")).close()
