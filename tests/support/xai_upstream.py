"""Upstreams that speak xAI's gRPC API, and models that talk to them.

One is antiphon's own server, with a scripted model; ``RawXai`` sends whatever it is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import grpc
import msgspec
from xai_sdk.proto import chat_pb2  # type: ignore[import-untyped]

from antiphon.core.deltas import Delta
from antiphon.core.turns import Options
from antiphon.models.retry import RetryPolicy
from antiphon.models.xai.model import XaiGrpcModel
from antiphon.turn.protocols import Model, ModelCall, ModelInfo
from support.grpc_client import wait_for_grpc_calls
from support.http_server import TIMEOUT
from support.model_calls import call_with_messages

T = TypeVar("T")

KEY = "xai-0123456789abcdefghij"


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(main, TIMEOUT))


class ManualClock:
    """A clock that only a model's waiting moves. ``waits`` are the seconds so far."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def model_at(port: int, clock: ManualClock | None = None, **options: Any) -> XaiGrpcModel:
    """A model behind a port of this machine, in the clear."""
    clock = clock or ManualClock()
    options = {"api_key": KEY, "clock": lambda: clock.now, "sleep": clock.sleep, **options}
    url = options.pop("url", f"http://127.0.0.1:{port}")
    return XaiGrpcModel(ModelInfo("m"), url, **options)


#: Failures are shown at once.
NO_RETRIES = RetryPolicy(max_retries=0)


def make_call(
    *messages: dict[str, Any], stream: bool = True, options: Options | None = None
) -> ModelCall:
    """A call; nothing but "Hi" is said unless messages are given."""
    fields = messages or ({"role": "user", "content": "Hi"},)
    return call_with_messages("scripted", msgspec.json.encode(fields), options or Options(), stream)


async def collect_deltas(model: Model, call: ModelCall | None = None) -> list[Delta]:
    return [delta async for batch in model.generate(call or make_call()) for delta in batch]


#: What ``RawXai`` does on one call: sends messages, or raises, or ends the call by the context.
Script = Callable[[Any, Any], AsyncIterator[Any]]


class RawXai:
    """A gRPC server whose nth call does what the nth script says, the last one for ever.

    ``requests`` are those that came, ``metadata`` what came with each. A context.
    """

    def __init__(self, *scripts: Script) -> None:
        self._scripts = scripts
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.port = 0

    async def __aenter__(self) -> RawXai:
        self._server = grpc.aio.server()
        decode = chat_pb2.GetCompletionsRequest.FromString
        methods: dict[str, Any] = {
            "GetCompletion": grpc.unary_unary_rpc_method_handler(
                self._whole, decode, chat_pb2.GetChatCompletionResponse.SerializeToString
            ),
            "GetCompletionChunk": grpc.unary_stream_rpc_method_handler(
                self._play, decode, chat_pb2.GetChatCompletionChunk.SerializeToString
            ),
        }
        handler = grpc.method_handlers_generic_handler("xai_api.Chat", methods)
        self._server.add_generic_rpc_handlers((handler,))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End all calls at once, with their connections."""
        await self._server.stop(None)
        await wait_for_grpc_calls()

    async def _play(self, request: Any, context: Any) -> AsyncIterator[Any]:
        script = self._scripts[min(len(self.requests), len(self._scripts) - 1)]
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        async for message in script(request, context):
            yield message

    async def _whole(self, request: Any, context: Any) -> Any:
        return await anext(self._play(request, context))


def send_script(*messages: Any) -> Script:
    """Sends these messages, and ends well."""

    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        for message in messages:
            yield message

    return script


def abort_script(
    status: grpc.StatusCode, details: str = "", *first: Any, **trailers: str | bytes
) -> Script:
    """Sends the ``first`` messages, then ends with a status."""

    async def script(request: Any, context: Any) -> AsyncIterator[Any]:
        for message in first:
            yield message
        named = tuple((name.replace("_", "-"), value) for name, value in trailers.items())
        await context.abort(status, details, named)

    return script


def chunk(*, finish: int = 0, usage: Any = None, role: int = 2, **fields: Any) -> Any:
    """A chunk of an answer; ``said`` are the fields of its delta."""
    delta = chat_pb2.Delta(role=role, **fields)
    output = chat_pb2.CompletionOutputChunk(delta=delta, finish_reason=finish)
    return chat_pb2.GetChatCompletionChunk(outputs=[output], usage=usage)


def tool_calls(*calls: tuple[str, str, str]) -> list[Any]:
    """Calls of functions: id, name and arguments of each."""
    return [
        chat_pb2.ToolCall(
            id=call_id,
            type=chat_pb2.TOOL_CALL_TYPE_CLIENT_SIDE_TOOL,
            function=chat_pb2.FunctionCall(name=name, arguments=arguments),
        )
        for call_id, name, arguments in calls
    ]


def role_texts(messages: Sequence[Any]) -> list[tuple[int, str]]:
    """Role and text of each of the SDK's messages."""
    return [(one.role, "".join(part.text for part in one.content)) for one in messages]
