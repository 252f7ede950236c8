"""gRPC server: methods by path, and a listener beside the HTTP server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError

from antiphon.api.common.authorization import Principal
from antiphon.api.common.body import MAX_BODY
from antiphon.api.common.deferred_completions import DeferredCompletions
from antiphon.api.grpc.chat import ChatServicer, Write
from antiphon.api.grpc.interceptor import RequestInterceptor
from antiphon.api.grpc.legacy_chat import LegacyChatServicer
from antiphon.api.grpc.models_tokenize_auth import AuthServicer, ModelsServicer, TokenizeServicer
from antiphon.api.grpc.response_codec import CompletionEncoder
from antiphon.api.grpc.stream_throttle import StreamThrottle
from antiphon.core.connection_limits import ConnectionLimits
from antiphon.core.token_prices import PriceLookup, no_prices
from antiphon.errors import (
    ConfigError,
    InvalidRequestError,
    MethodNotAllowedError,
    RequestTimeoutError,
)
from antiphon.protos.legacy_chat import ADD_RESPONSE, StatelessConversation
from antiphon.protos.xai import (
    Proto,
    chat_pb2,
    deferred_pb2,
    models_pb2,
    tokenize_pb2,
)
from antiphon.threads import background_priority
from antiphon.turn.service import TurnService

_UnaryMethod: TypeAlias = Callable[[Principal, Any], Awaitable[Proto]]
_StreamMethod: TypeAlias = Callable[[Principal, Any, Write], Awaitable[None]]

#: What clients of the SDK may look for here in vain, by their service.
_UNSUPPORTED_SERVICES = {
    "xai_api.Image": "images",
    "xai_api.Video": "videos",
    "xai_api.Files": "files",
    "xai_api.Documents": "documents",
    "xai_api.BatchMgmt": "batches",
    "xai_api.Embedder": "embeddings",
    "xai_api.Sample": "raw sampling",
}
_SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_BODY),
    ("grpc.max_send_message_length", -1),
    # Two servers on one port would take turns.
    # The SDK asks every 30 seconds whether the connection lives, also while a model thinks
    # for minutes: by default a server takes that for an attack.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_ping_strikes", 0),
    # Who has vanished without a word is noticed, and its turns need not go on.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
#: Milliseconds after which a connection without calls is closed: clients open another.
_MAX_IDLE = 600_000
#: Calls at once on one connection; further ones wait for their turn in the client.
_MAX_CONCURRENT_CALLS = 1000
_DEFAULT_LIMITS = ConnectionLimits()


def _limit_options(limits: ConnectionLimits) -> tuple[tuple[str, int], ...]:
    """The limits of connections in gRPC's words."""
    return (
        ("grpc.max_metadata_size", limits.max_header_bytes),
        ("grpc.absolute_max_metadata_size", limits.max_header_bytes),
        ("grpc.server_handshake_timeout_ms", int(limits.header_timeout * 1000)),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", _MAX_CONCURRENT_CALLS),
        ("grpc.max_connection_idle_ms", _MAX_IDLE),
    )


class Certificate(Protocol):
    """The files of a certificate chain and of its key, in PEM."""

    @property
    def cert(self) -> Path: ...

    @property
    def key(self) -> Path: ...


class GrpcServer:
    """The gRPC API over one service.

    ``prices`` says what models cost, ``fun_prompt`` is the first Chat SDK's "fun" mode.
    ``deferred_completions`` are those of the HTTP API, too, where it is served beside this one.
    """

    def __init__(  # noqa: PLR0913
        self,
        service: TurnService,
        interceptor: RequestInterceptor,
        *,
        prices: PriceLookup = no_prices,
        fun_prompt: str = "",
        limits: ConnectionLimits = _DEFAULT_LIMITS,
        shares_port: bool = False,
        deferred_completions: DeferredCompletions | None = None,
    ) -> None:
        self._deferred_completions = deferred_completions or DeferredCompletions()
        self._limits = limits
        #: Other processes listen on the same port.
        self._shares_port = shares_port
        fingerprint = f"antiphon-{version('antiphon')}"
        self._interceptor = interceptor
        self._handlers = self._build_handlers(service, prices, fingerprint, fun_prompt)
        self._server: grpc.aio.Server | None = None

    async def start(self, host: str, port: int, certificate: Certificate | None = None) -> int:
        """Listen, on any free port where that is 0; the port. Raises ``ConfigError``."""
        with background_priority():
            return await self._start(host, port, certificate)

    async def _start(self, host: str, port: int, certificate: Certificate | None) -> int:
        # Two servers on one port take turns, which only workers of one server shall.
        port_option = ("grpc.so_reuseport", int(self._shares_port))
        server = grpc.aio.server(
            options=(*_SERVER_OPTIONS, port_option, *_limit_options(self._limits))
        )
        server.add_generic_rpc_handlers((_Router(self._handlers, self._unimplemented_handler),))
        at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if certificate is None:
                bound = server.add_insecure_port(at)
            else:
                pair = (certificate.key.read_bytes(), certificate.cert.read_bytes())
                bound = server.add_secure_port(at, grpc.ssl_server_credentials([pair]))
        except (RuntimeError, OSError) as error:
            raise ConfigError(f"cannot listen on {host} port {port} for gRPC") from error
        await server.start()
        self._server = server
        return bound

    async def stop(self, grace: float | None = None) -> None:
        """Take no new calls, and end those under way after ``grace`` seconds.

        May be called again, to end them sooner.
        """
        if self._server is not None:
            await self._server.stop(grace)

    def _build_handlers(
        self, service: TurnService, prices: PriceLookup, fingerprint: str, fun_prompt: str
    ) -> dict[str, Any]:
        throttle = StreamThrottle()
        encoder = CompletionEncoder(prices, fingerprint)
        chat = ChatServicer(service, encoder, throttle, self._deferred_completions)
        models = ModelsServicer(service, prices, fingerprint)
        completions = chat_pb2.GetCompletionsRequest
        model = models_pb2.GetModelRequest
        answers: dict[str, tuple[Proto, _UnaryMethod]] = {
            "/xai_api.Chat/GetCompletion": (completions, chat.complete),
            "/xai_api.Chat/StartDeferredCompletion": (completions, chat.defer),
            "/xai_api.Chat/GetDeferredCompletion": (
                deferred_pb2.GetDeferredRequest,
                chat.get_deferred,
            ),
            "/xai_api.Chat/GetStoredCompletion": (
                chat_pb2.GetStoredCompletionRequest,
                chat.get_stored,
            ),
            "/xai_api.Chat/DeleteStoredCompletion": (
                chat_pb2.DeleteStoredCompletionRequest,
                chat.delete,
            ),
            "/xai_api.Chat/CompactContext": (chat_pb2.CompactContextRequest, chat.compact),
            "/xai_api.Models/ListLanguageModels": (Empty, models.list_language),
            "/xai_api.Models/GetLanguageModel": (model, models.get_language),
            "/xai_api.Models/ListEmbeddingModels": (Empty, models.list_embedding),
            "/xai_api.Models/GetEmbeddingModel": (model, models.get_other),
            "/xai_api.Models/ListImageGenerationModels": (Empty, models.list_image),
            "/xai_api.Models/GetImageGenerationModel": (model, models.get_other),
            "/xai_api.Tokenize/TokenizeText": (
                tokenize_pb2.TokenizeTextRequest,
                TokenizeServicer(service).tokenize_text,
            ),
            "/xai_api.Auth/get_api_key_info": (Empty, AuthServicer().api_key_info),
        }
        streams: dict[str, tuple[Proto, _StreamMethod]] = {
            "/xai_api.Chat/GetCompletionChunk": (completions, chat.stream),
            ADD_RESPONSE: (
                StatelessConversation,
                LegacyChatServicer(service, fun_prompt, throttle).add_response,
            ),
        }
        return {
            **{path: self._unary_handler(path, *entry) for path, entry in answers.items()},
            **{path: self._stream_handler(path, *entry) for path, entry in streams.items()},
        }

    # Handlers take and give bytes: what cannot be decoded gets a status of ours. They read the
    # one message themselves, although the library could: keys come first, and it has a deadline.

    def _unary_handler(self, path: str, kind: Proto, answer: _UnaryMethod) -> Any:
        async def handle(_: object, context: Any) -> bytes:
            async def work(caller: Principal) -> bytes:
                message = await self._read_message(kind, context)
                done: bytes = (await answer(caller, message)).SerializeToString()
                return done

            return await self._interceptor.intercept(path, context, work)

        return grpc.stream_unary_rpc_method_handler(handle)

    def _stream_handler(self, path: str, kind: Proto, stream: _StreamMethod) -> Any:
        async def handle(_: object, context: Any) -> None:
            async def work(caller: Principal) -> bytes:
                await stream(caller, await self._read_message(kind, context), context.write)
                return b""

            await self._interceptor.intercept(path, context, work)

        return grpc.stream_stream_rpc_method_handler(handle)

    async def _read_message(self, kind: Proto, context: Any) -> Proto:
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                body = await context.read()
        except TimeoutError as error:
            raise RequestTimeoutError("The rest of the message did not come.") from error
        if body is grpc.aio.EOF:
            raise InvalidRequestError("There is no message.", code="invalid_protobuf")
        return _decode_message(kind, body)

    def _unimplemented_handler(self, path: str) -> Any:
        async def handle(requests: object, context: Any) -> None:
            async def work(caller: Principal) -> bytes:
                what = _UNSUPPORTED_SERVICES.get(path.strip("/").partition("/")[0])
                raise MethodNotAllowedError(
                    f"antiphon does not serve {what}: it keeps conversations."
                    if what
                    else f"There is no method {path[:100]}.",
                    code="unimplemented",
                )

            await self._interceptor.intercept(path, context, work, known_path=False)

        # Whatever the client sends, one message or many, need not be read.
        return grpc.stream_stream_rpc_method_handler(handle)


class _Router(grpc.GenericRpcHandler):
    """Finds a call's handler by its path."""

    def __init__(self, handlers: Mapping[str, Any], unimplemented: Callable[[str], Any]) -> None:
        self._handlers = handlers
        self._unimplemented = unimplemented

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path: str = handler_call_details.method
        return self._handlers.get(path) or self._unimplemented(path)


def _decode_message(kind: Proto, body: bytes) -> Proto:
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidRequestError(
            "The message cannot be decoded.", code="invalid_protobuf"
        ) from error
