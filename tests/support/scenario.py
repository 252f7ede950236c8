"""A scenario: a real server over a misbehaving upstream, asked over real sockets.

    with scenario() as world:
        world.upstream_sends(stream_of(text("Hello"), text(" there."), end("stop"), DONE))
        world.respond().expect("completed", "Hello there.")

The upstream is ``MisbehavingUpstream`` in a thread of its own, so that a test is plain blocking
code: it queues what the upstream answers, asks the server, and looks at the outcome. Each
scenario has models of its own, since a model remembers what its upstream refuses.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.models.openai.responses import ResponsesModel
from antiphon.models.retry import RetryPolicy
from antiphon.turn.protocols import Model, ModelInfo
from support.http_server import TIMEOUT, Answer, ThreadServer, serving
from support.misbehaving_upstream import (
    CLOSE,
    CUT,
    HANG,
    Behaviour,
    MisbehavingUpstream,
    Move,
    Request,
    Signal,
    answer,
)

T = TypeVar("T")
Json = dict[str, Any]

#: Tools that most scenarios offer, in the Responses API's shape and in chat completions'.
LOOKUP: Json = {
    "type": "function",
    "name": "lookup",
    "parameters": {"type": "object", "properties": {"c": {"type": "integer"}}},
}
NOW: Json = {"type": "function", "name": "now", "parameters": {"type": "object", "properties": {}}}


def nested(tool: Json) -> Json:
    """A function tool as chat completions have it."""
    return {"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}}


# ---- what an upstream sends, as bytes


def data(value: Any) -> bytes:
    """One event of this JSON, or of these bytes as they are."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"data: " + raw + b"\n\n"


def chunk(delta: Any, reason: Any = None, **choice: Any) -> bytes:
    """An event with one choice."""
    return data({"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **choice}]})


def text(words: Any) -> bytes:
    return chunk({"content": words})


def end(reason: Any = "stop", **choice: Any) -> bytes:
    return chunk({}, reason, **choice)


DONE = data(b"[DONE]")


def call(*fragments: Any) -> bytes:
    """An event whose delta has these entries of ``tool_calls``."""
    return chunk({"tool_calls": list(fragments)})


def stream_of(
    *parts: Move,
    content_type: str | None = "text/event-stream",
    headers: Mapping[str, str] | None = None,
    close: bool = False,
    status: int = 200,
) -> Behaviour:
    """A streamed answer, one write a part. ``close``: without chunks, ended by closing."""
    fields = {} if content_type is None else {"Content-Type": content_type}
    fields |= {"Connection": "close"} if close else {"Transfer-Encoding": "chunked"}
    fields |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    moves: Behaviour = [f"HTTP/1.1 {status} OK\r\n{head}\r\n".encode()]
    for part in parts:
        if isinstance(part, bytes) and not close:
            moves.append(b"%x\r\n%s\r\n" % (len(part), part) if part else b"")
        else:
            moves.append(part)
    if close:
        moves.append(CLOSE)
    elif not {HANG, CUT, CLOSE} & {one for one in parts if isinstance(one, Signal)}:
        moves.append(b"0\r\n\r\n")
    return moves


def whole(message: Any, reason: Any = "stop", **fields: Any) -> Behaviour:
    """A completion in one piece; ``fields`` are further ones of its body."""
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return body_of({"choices": [choice], **fields})


def body_of(value: Any, status: int = 200, content_type: str = "application/json") -> Behaviour:
    """A body of this JSON, or of these bytes as they are."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return answer(raw, status, {"Content-Type": content_type})


def answer_hello(request: Request) -> Behaviour:
    """A good answer, streamed where that was asked for."""
    if request.json.get("stream"):
        return stream_of(chunk({"content": "Hello"}), end(), DONE)
    return whole({"role": "assistant", "content": "Hello"})


# ---- what a client sees


@dataclass(frozen=True)
class Outcome:
    """What came of a request: the same fields for both APIs, streamed or not.

    ``status`` is the response's (``completed``, ``failed``, ``incomplete``), over chat
    completions the finish reason, or ``error`` where the answer was one; ``http`` is HTTP's.
    """

    http: int
    status: str
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    error: Json | None = None
    #: The response, or the completion put together from its chunks.
    body: Json = field(default_factory=dict)
    #: The events of a streamed response, or the chunks of a streamed completion.
    events: list[Json] = field(default_factory=list)
    answer: Answer | None = None

    def expect(
        self, status: str, words: str | None = None, *, calls: list[tuple[str, str]] | None = None
    ) -> Outcome:
        """Assert the status and, where given, the words and the calls (name, arguments)."""
        assert (self.status, self.http) == (status, self.http), (self.http, self.error, self.body)
        if words is not None:
            assert self.text == words
        if calls is not None:
            assert self.calls == calls
            assert all(self.call_ids)
            assert len(set(self.call_ids)) == len(self.call_ids)
        return self


class Scenario:
    """One server and its upstream; ``requests`` are the bodies that the upstream got."""

    def __init__(self, server: ThreadServer, upstream: UpstreamThread) -> None:
        self.server = server
        self._upstream = upstream

    def upstream_sends(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, one after another."""
        self._upstream.upstream.then(*behaviours)

    def upstream_answers(self, default: Callable[[Request], Behaviour]) -> None:
        """Answer all further requests by a function of the request."""
        self._upstream.upstream.default_answer = default

    @property
    def requests(self) -> list[Json]:
        return [one.json for one in self._upstream.upstream.requests if one.method == "POST"]

    @property
    def all_requests(self) -> list[Request]:
        """Everything that the upstream was asked."""
        return list(self._upstream.upstream.requests)

    def set(self, event: asyncio.Event) -> None:
        """Set an event that an upstream's behaviour waits for."""
        self._upstream.loop.call_soon_threadsafe(event.set)

    def respond(self, given: Any = "Hi", /, *, stream: bool = True, **fields: Any) -> Outcome:
        """A request to ``/v1/responses``; its response is fetched again and compared."""
        body = {"input": given, "stream": stream, **fields}
        answered = self.server.request("POST", "/v1/responses", body)
        outcome = response_outcome(answered)
        if outcome.body.get("id") and fields.get("store") is not False:
            again = self.server.get(f"/v1/responses/{outcome.body['id']}")
            assert again.json == outcome.body
        return outcome

    def chat(self, given: Any = "Hi", /, *, stream: bool = True, **fields: Any) -> Outcome:
        """A request to ``/v1/chat/completions``; ``given`` is a text, or the messages."""
        messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
        body = {"model": "m", "messages": messages, "stream": stream, **fields}
        return completion_outcome(self.server.request("POST", "/v1/chat/completions", body))


def response_outcome(answered: Answer) -> Outcome:
    """What ``/v1/responses`` answered."""
    if answered.headers.get("content-type", "").startswith("text/event-stream"):
        events = answered.events
        errors = [one for one in events if one["type"] == "error"]
        body: Json = next((one["response"] for one in reversed(events) if "response" in one), {})
        error = errors[0] if errors else body.get("error")
    else:
        events, body = [], answered.json
        error = body.get("error")
        if answered.status >= 400:
            return Outcome(answered.status, "error", error=error, answer=answered)
    items = body.get("output", [])
    parts = [part for one in items if one["type"] == "message" for part in one["content"]]
    thoughts = [
        part
        for one in items
        if one["type"] == "reasoning"
        for part in [*one.get("summary", []), *(one.get("content") or [])]
    ]
    calls = [one for one in items if one["type"] == "function_call"]
    return Outcome(
        answered.status,
        body.get("status", "error"),
        text="".join(part.get("text", "") for part in parts),
        refusal="".join(part.get("refusal", "") for part in parts),
        reasoning="".join(part["text"] for part in thoughts),
        calls=[(one["name"], one["arguments"]) for one in calls],
        call_ids=[one["call_id"] for one in calls],
        error=error,
        body=body,
        events=events,
        answer=answered,
    )


def completion_outcome(answered: Answer) -> Outcome:
    """What ``/v1/chat/completions`` answered."""
    streamed = answered.headers.get("content-type", "").startswith("text/event-stream")
    if not streamed:
        body = answered.json
        if "error" in body:
            return Outcome(answered.status, "error", error=body["error"], answer=answered)
        chunks: list[Json] = []
        choice = body["choices"][0]
        message, reason = choice["message"], choice["finish_reason"]
    else:
        chunks = [
            json.loads(block[6:])
            for block in answered.body.decode().split("\n\n")
            if block.startswith("data: ") and block != "data: [DONE]"
        ]
        message, reason = _joined(chunks)
        body = {"choices": [{"message": message, "finish_reason": reason}]}
    error = next((one["error"] for one in chunks if "error" in one), None)
    calls = message.get("tool_calls") or []
    return Outcome(
        answered.status,
        "error" if error else str(reason),
        text=message.get("content") or "",
        refusal=message.get("refusal") or "",
        reasoning=message.get("reasoning_content") or message.get("reasoning") or "",
        calls=[_completion_call(one) for one in calls],
        call_ids=[one["id"] for one in calls],
        error=error,
        body=body,
        events=chunks,
        answer=answered,
    )


def _completion_call(made: Json) -> tuple[str, str]:
    """A call's name, and its arguments or a custom tool's input."""
    called = made.get("custom") or made["function"]
    return called["name"], called.get("arguments", called.get("input"))


def _joined(chunks: list[Json]) -> tuple[Json, str | None]:
    """The message of a stream's chunks, and its finish reason."""
    message: Json = {}
    reason = None
    for one in chunks:
        for choice in one.get("choices", []):
            reason = choice.get("finish_reason") or reason
            for name, value in choice["delta"].items():
                if name == "tool_calls":
                    _join_calls(message.setdefault("tool_calls", []), value)
                elif isinstance(value, str) and name != "role":
                    message[name] = message.get(name, "") + value
                elif value is not None:
                    message[name] = value
    return message, reason


def _join_calls(calls: list[Json], fragments: list[Json]) -> None:
    for one in fragments:
        while len(calls) <= one["index"]:
            calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[one["index"]]
        call["id"] = call["id"] or one.get("id", "")
        for name, value in one.get("function", {}).items():
            call["function"][name] = call["function"].get(name, "") + value
        if "custom" in one:
            call["type"] = "custom"
        call |= {k: v for k, v in one.items() if k not in ("index", "id", "type", "function")}


# ---- starting it


class UpstreamThread:
    """A misbehaving upstream on an event loop of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.upstream = MisbehavingUpstream()
        self._thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> UpstreamThread:
        self._thread.start()
        self._run(self.upstream.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.upstream.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(TIMEOUT)
        self.loop.close()

    def _run(self, work: Awaitable[T]) -> T:
        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(TIMEOUT)


@contextmanager
def scenario(
    kind: str = "chat_completions",
    *,
    retry: RetryPolicy | None = None,
    models: Callable[[str], Mapping[str, Model]] | None = None,
    **options: Any,
) -> Iterator[Scenario]:
    """A server whose default model ``m`` is an upstream of this kind.

    ``models`` makes other models from the upstream's base URL; ``options`` go to the model.
    Fails at the end if the server logged an error.
    """
    with UpstreamThread() as upstream:
        url = upstream.upstream.base_url
        quick = retry or RetryPolicy(base=0.0)
        make = ChatCompletionsModel if kind == "chat_completions" else ResponsesModel
        made: Mapping[str, Model] = (
            models(url)
            if models
            else {"m": make(ModelInfo("m"), url, retry=quick, **{"read_timeout": 10.0, **options})}
        )
        with serving(made) as server:
            try:
                yield Scenario(server, upstream)
            finally:
                for model in made.values():
                    server.run(model.close())
