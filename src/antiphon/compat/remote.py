"""Legacy Chat SDK over gRPC: sends the whole conversation to a server with each turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import grpc

from antiphon.core.http_proxies import is_loopback
from antiphon.core.secrets import Secret
from antiphon.core.urls import host_of
from antiphon.errors import (
    AntiphonError,
    AuthenticationError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    MethodNotAllowedError,
    ModelError,
    ModelTimeoutError,
    ModelUnavailableError,
    NotFoundError,
    StoreError,
    error_from_code,
)
from antiphon.protos.legacy_chat import ADD_RESPONSE, StatelessConversation, StatelessResponse

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    # A model may think for minutes; a server that has vanished meanwhile should be noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
#: What an error is whose code says nothing, by its gRPC status.
_ERROR_BY_GRPC_STATUS: Final[dict[str, type[AntiphonError]]] = {
    kind.grpc: kind
    for kind in (
        InvalidRequestError,
        AuthenticationError,
        ForbiddenError,
        NotFoundError,
        MethodNotAllowedError,
        ConflictError,
        ModelTimeoutError,
        StoreError,
    )
}


class SdkMessage(Protocol):
    """One thing said. ``sender`` is the number of the protocol's."""

    @property
    def sender(self) -> int: ...

    @property
    def message(self) -> str: ...


class ServerAddress:
    """A server: where it is, and the key for it.

    ``insecure``: without TLS, as always on this machine. Raises ``ConfigError``.
    """

    def __init__(self, address: str, key: Secret | None, *, insecure: bool) -> None:
        self.address = address
        self._key = key
        self._insecure = insecure or _is_loopback(address)

    def channel(self) -> grpc.Channel:
        """A new connection. Nobody closes this SDK's clients, so each turn has its own."""
        if self._insecure:
            return grpc.insecure_channel(self.address, options=_OPTIONS)
        credentials = grpc.ssl_channel_credentials()
        return grpc.secure_channel(self.address, credentials, options=_OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What each call carries."""
        key = self._key
        return (("authorization", f"Bearer {key.reveal()}"),) if key is not None else ()


class RemoteBackend:
    """One conversation with a server. ``model`` "" is the server's default."""

    #: Nothing is stored.
    response_id: None = None

    def __init__(self, host: ServerAddress, model: str, fun_mode: bool) -> None:
        self._host = host
        self._request_fields = {
            "system_prompt_name": "fun" if fun_mode else "",
            "stateless_conversation_id": str(uuid.uuid4()),
            "model_name": model,
        }

    async def stream_answer(self, messages: Sequence[SdkMessage]) -> AsyncGenerator[str, None]:
        """The answer to the last of what was told. Raises ``AntiphonError``."""
        request = self._request(messages)
        # gRPC's own asyncio leaves work behind that outlives a cancelled call, and complains
        # when the event loop ends before it. So this is its blocking half, in a thread.
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread, self._host.channel() as channel:
            method: Any = channel.unary_stream(
                ADD_RESPONSE,
                request_serializer=StatelessConversation.SerializeToString,
                response_deserializer=StatelessResponse.FromString,
            )
            call = method(request, metadata=self._host.metadata)
            try:
                while (piece := await loop.run_in_executor(thread, next, call, None)) is not None:
                    yield piece.message
            except grpc.RpcError as error:
                raise _to_error(error, self._host.address) from error
            finally:
                # Ends the thread at once, wherever it is.
                call.cancel()

    def _request(self, messages: Sequence[SdkMessage]) -> Any:
        try:
            responses = [
                StatelessResponse(sender=one.sender, message=one.message) for one in messages
            ]
        except ValueError as error:
            raise InvalidRequestError("The text is not valid Unicode.", param="input") from error
        return StatelessConversation(responses=responses, **self._request_fields)


def _is_loopback(address: str) -> bool:
    """Whether that is this machine."""
    name = host_of(address) if "/" not in address else ""
    if not name:
        raise ConfigError(f"api_host is HOST:PORT, not {address[:100]!r}")
    return is_loopback(name)


def _to_error(error: Any, address: str) -> AntiphonError:
    """What a call failed with, as one of ours."""
    trailers: dict[str, Any] = dict(error.trailing_metadata() or ())
    message = error.details() or "The call failed."
    code = trailers.get("x-error-code")
    if code is None:
        # No antiphon says so, but whatever is there instead or on the way to it.
        kind = ModelUnavailableError if error.code() is grpc.StatusCode.UNAVAILABLE else ModelError
        return kind(f"The call to {address} failed: {message}")
    ours = error_from_code(code, message)
    if type(ours) is ModelError and error.code().name in _ERROR_BY_GRPC_STATUS:
        ours = _ERROR_BY_GRPC_STATUS[error.code().name](message, code=code)
    ours.param = trailers.get("x-error-param")
    ours.response_id = trailers.get("x-response-id")
    if "retry-after" in trailers:
        ours.retry_after = float(trailers["retry-after"])
    return ours
