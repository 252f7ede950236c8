"""What the tests of the Python API share: both twins driven alike, and a real upstream.

    with staged("async", tmp_path) as stage:
        stage.upstream.answers(Says(calls=(Call("weather", {"city": "Rome"}),)), Says("Sunny."))
        chat = stage.new(tools=[weather])
        assert chat.send("Weather?").text == "Sunny."
        assert stage.shown()[-1]["role"] == "tool"

The upstream answers in one piece or as a stream, whichever is asked for, and notes every
array of messages that no real one would take; the stage refuses to end with such a note.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import io
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from unittest.mock import patch

from PIL import Image

from antiphon import AsyncConversation, Conversation, Settings, bootstrap, configured_models
from antiphon.blocking_portal import BlockingPortal
from antiphon.chat.blocking import portal
from antiphon.core.turns import DEFAULT_TENANT, Response
from antiphon.models.openai.chat_completions import ChatCompletionsModel
from antiphon.settings import ModelSettings
from antiphon.turn.service import TurnService
from support.misbehaving_upstream import (
    DONE,
    Behaviour,
    MisbehavingUpstream,
    Request,
    chunk,
    completion,
    events,
    json_completion,
    stream,
)
from support.stored_responses import response_ids_of_service

T = TypeVar("T")

VARIANTS = ["blocking", "async"]
KEY = "xai-0123456789abcdefghij"

#: Seconds for what happens at once: a test fails then, and does not hang.
_TIMEOUT = 30.0


async def _nothing() -> None:
    pass


#: A loop for upstreams, on a thread that is not the test's.
upstream_portal = BlockingPortal(_nothing)


def set_event(held: asyncio.Event) -> None:
    """Let an upstream go on that waits for this event."""

    async def lift() -> None:
        held.set()

    upstream_portal.run(lift)


@dataclass(frozen=True)
class Call:
    """A call that a model makes; arguments may be any text."""

    name: str
    arguments: dict[str, Any] | str = field(default_factory=dict)
    id: str = ""

    def wire(self, number: int) -> dict[str, Any]:
        text = self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)
        call_id = self.id or f"call_{number}"
        return {
            "index": number,
            "id": call_id,
            "type": "function",
            "function": {"name": self.name, "arguments": text},
        }


@dataclass(frozen=True)
class ModelAnswer:
    """A model's answer. ``tokens``: of the input, of the output, cached ones of the input."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    finish: str = ""
    refusal: str = ""
    tokens: tuple[int, int, int] = (5, 2, 0)

    def behaviour(self, request: Request) -> Behaviour:
        calls = [call.wire(number) for number, call in enumerate(self.calls)]
        reason = self.finish or ("tool_calls" if calls else "stop")
        prompt, completion, cached = self.tokens
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        if not request.json.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
            message |= {"tool_calls": calls} if calls else {}
            message |= {"refusal": self.refusal} if self.refusal else {}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return json_completion({"choices": [choice], "usage": usage})
        chunks = [chunk(role="assistant", content="")]
        middle = len(self.text) // 2
        chunks += [chunk(content=part) for part in (self.text[:middle], self.text[middle:]) if part]
        chunks += [chunk(refusal=self.refusal)] if self.refusal else []
        chunks += [piece for call in calls for piece in _pieces(call)]
        return stream(*events(*chunks, chunk(reason), {"choices": [], "usage": usage}, DONE))


def _pieces(call: dict[str, Any]) -> list[dict[str, Any]]:
    """A call as it forms: its name, then its arguments in two halves."""
    text = call["function"]["arguments"]
    half = len(text) // 2
    begin = {**call, "function": {**call["function"], "arguments": ""}}
    parts = [{"index": call["index"], "function": {"arguments": one}} for one in (text[:half],)]
    parts += [{"index": call["index"], "function": {"arguments": text[half:]}}]
    return [chunk(tool_calls=[one]) for one in (begin, *parts)]


Answer: TypeAlias = "ModelAnswer | Behaviour | Callable[[Request], ModelAnswer | Behaviour]"


class ChatUpstream(MisbehavingUpstream):
    """Plays answers in their order; says "Hello." where there is none.

    ``faults`` are what was wrong with the messages it was shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.message_errors: list[str] = []
        self.planned_answers: deque[Answer] = deque()

    def plan_answers(self, *answers: Answer) -> None:
        """Answer the next requests so, one after another."""
        self.planned_answers.extend(answers)

    async def _behave(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        self.message_errors += pairing_errors(request.json["messages"])
        if not self._queue:
            answer = (
                self.planned_answers.popleft() if self.planned_answers else ModelAnswer("Hello.")
            )
            if callable(answer):
                answer = answer(request)
            self.then(answer.behaviour(request) if isinstance(answer, ModelAnswer) else answer)
        return await super()._behave(request, reader, writer)


def pairing_errors(messages: list[dict[str, Any]]) -> list[str]:
    """Where calls and outputs of a messages array do not pair up as upstreams demand."""
    found: list[str] = []
    waiting: list[str] = []
    for place, message in enumerate(messages):
        if message["role"] == "tool":
            if message["tool_call_id"] in waiting:
                waiting.remove(message["tool_call_id"])
            else:
                found.append(f"message {place} is an output of no call: {messages}")
            continue
        if waiting:
            found.append(f"message {place} comes before the outputs of {waiting}: {messages}")
        waiting = [call["id"] for call in message.get("tool_calls", ())]
        if len(set(waiting)) < len(waiting):
            found.append(f"message {place} has two calls of one id: {messages}")
    if waiting:
        found.append(f"the array ends before the outputs of {waiting}: {messages}")
    return found


class ChatHarness:
    """Conversations of one of the twins, over one upstream and one file.

    What it makes behaves like a ``Conversation``, whichever twin it is.
    """

    def __init__(self, twin: str, folder: Path, upstream: ChatUpstream, waits: list[float]) -> None:
        self.upstream = upstream
        #: The seconds that would have been waited before an upstream was asked again.
        self.waits = waits
        self.file = folder / "turns.db"
        self.settings = self.make_settings()
        self._runner = asyncio.Runner() if twin == "async" else None
        self._made: list[Settings] = []

    def make_settings(self, **model: Any) -> Settings:
        """Settings of the upstream's model."""
        fields = {"kind": "chat_completions", "base_url": self.upstream.base_url, **model}
        models = {"m": ModelSettings(**fields)}
        return Settings(store=f"sqlite:{self.file}", model="m", models=models)

    def new(self, model: str | None = None, **options: Any) -> Any:
        options = {"settings": self.settings, **options}
        if self._runner is None:
            return Conversation(model, **options)
        return BlockingAdapter(AsyncConversation(model, **options), self.run)

    def resume(self, response_id: str, **options: Any) -> Any:
        return self._open_conversation("resume", response_id, options)

    def load(self, messages: Any, **options: Any) -> Any:
        return self._open_conversation("load", messages, options)

    def _open_conversation(self, way: str, fields: Any, options: dict[str, Any]) -> Any:
        options = {"settings": self.settings, **options}
        if self._runner is None:
            return getattr(Conversation, way)(fields, **options)
        return BlockingAdapter(
            self.run(getattr(AsyncConversation, way)(fields, **options)), self.run
        )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something in the loop in which the conversations live."""
        return portal.run(lambda: work) if self._runner is None else self._runner.run(work)

    def sent_messages(self, number: int = -1) -> list[dict[str, Any]]:
        """The messages that the upstream was shown, last by default."""
        messages: list[dict[str, Any]] = self.request_body(number)["messages"]
        return messages

    def request_body(self, number: int = -1) -> Any:
        return self.upstream.requests[number].json

    @property
    def request_count(self) -> int:
        """How often the upstream was asked."""
        return len(self.upstream.requests)

    def service(self, ask: Callable[[TurnService], Coroutine[Any, Any, T]]) -> T:
        """What the service behind the conversations says."""

        async def look() -> T:
            return await ask((await bootstrap.shared_engine(self.settings)).service)

        return self.run(look())

    def response(self, response_id: str | None) -> Response:
        assert response_id is not None
        return self.service(lambda service: service.reader.response(DEFAULT_TENANT, response_id))

    def response_ids(self) -> list[str]:
        """The ids of all responses that are stored, the newest first."""
        return self.service(response_ids_of_service)

    def wait_for_disconnect(self, number: int = -1) -> None:
        """Wait until the upstream has noticed that nobody listens to its answer any more."""

        async def noticed() -> None:
            async with asyncio.timeout(_TIMEOUT):
                await self.upstream.requests[number].disconnected.wait()

        upstream_portal.run(noticed)

    def stored_bytes(self) -> bytes:
        """All that is kept."""
        files = self.file.parent.glob(self.file.name + "*")
        return b"".join(one.read_bytes() for one in files if one.is_file())

    def close(self) -> None:
        self.run(bootstrap.close_shared_engines())
        if self._runner is not None:
            self._runner.close()


@contextmanager
def chat_harness(twin: str, folder: Path) -> Iterator[ChatHarness]:
    """A stage whose upstream is up, and whose retries do not wait."""
    upstream = ChatUpstream()
    upstream_portal.run(upstream.__aenter__)
    with without_retry_delays() as waits:
        stage = ChatHarness(twin, folder, upstream, waits)
        try:
            yield stage
        finally:
            stage.close()
            upstream_portal.run(lambda: upstream.__aexit__(None, None, None))
    assert upstream.message_errors == []


@contextmanager
def without_retry_delays() -> Iterator[list[float]]:
    """Upstreams are asked again at once; the seconds that would have been waited."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    quick = functools.partial(ChatCompletionsModel, sleep=sleep)
    with patch.object(configured_models, "ChatCompletionsModel", quick):
        yield waits


class BlockingAdapter:
    """An ``AsyncConversation`` or what it gives, called as if it were blocking."""

    def __init__(self, twin: Any, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self.__dict__.update(_twin=twin, _run=run)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._twin, name)
        if inspect.ismethod(found) or inspect.isfunction(found):
            return lambda *args, **kwargs: self._adapt(found(*args, **kwargs))
        return self._adapt(found)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._twin, name, value)

    def __iter__(self) -> BlockingAdapter:
        return self

    def __next__(self) -> Any:
        over = object()

        async def step() -> Any:
            return await anext(self._twin, over)

        value = self._run(step())
        if value is over:
            raise StopIteration
        return value

    def __enter__(self) -> BlockingAdapter:
        return self

    def __exit__(self, *error: object) -> None:
        self._run(self._twin.__aexit__(*error))

    def _adapt(self, value: Any) -> Any:
        if inspect.isawaitable(value):

            async def wait() -> Any:
                return await value

            value = self._run(wait())
        if isinstance(value, AsyncConversation | AsyncIterator):
            return BlockingAdapter(value, self._run)
        return value


def contents(messages: list[dict[str, Any]]) -> list[Any]:
    return [message["content"] for message in messages]


def roles(messages: list[dict[str, Any]]) -> str:
    """Who speaks, by first letters: ``suat`` is system, user, assistant, tool."""
    return "".join(message["role"][0] for message in messages)


def outputs(messages: list[dict[str, Any]]) -> dict[str, str]:
    """What a model was told of its calls."""
    return {one["tool_call_id"]: one["content"] for one in messages if one["role"] == "tool"}


def png(color: str = "red") -> bytes:
    """A small picture."""
    data = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(data, "PNG")
    return data.getvalue()


def images(messages: list[dict[str, Any]]) -> list[str]:
    """The addresses of all images in a messages array."""
    parts = [
        part for one in messages if isinstance(one["content"], list) for part in one["content"]
    ]
    return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]


__all__ = [
    "KEY",
    "VARIANTS",
    "Call",
    "ChatHarness",
    "ChatUpstream",
    "ModelAnswer",
    "chat_harness",
    "completion",
    "contents",
    "images",
    "outputs",
    "pairing_errors",
    "png",
    "roles",
    "set_event",
    "upstream_portal",
    "without_retry_delays",
]
