"""xAI upstream: a model behind xAI's gRPC API, with retries, proxy support and error mapping.

Upstream nothing is stored. The SDK's own client is not used, only its messages: the client
looks for keys by itself, has retry rules of its own, and repeats the whole answer so far with
each chunk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec
from yarl import URL

from antiphon.core.deltas import Delta
from antiphon.core.http_proxies import Proxy, find_proxy
from antiphon.errors import (
    ConfigError,
    InvalidRequestError,
    ModelTimeoutError,
    ModelUnavailableError,
)
from antiphon.models.openai.upstream_errors import (
    ENDPOINT_MISSING,
    ErrorMapper,
    incomplete_stream,
)
from antiphon.models.openai.upstream_model import (
    READ_TIMEOUT,
    authorization_header,
    header_secrets,
    parse_http_url,
)
from antiphon.models.retry import AttemptError, RetryAttempts, RetryPolicy, retry_after
from antiphon.models.unpassed_fields import UnpassedFields
from antiphon.models.xai.answer_parsing import XaiParser
from antiphon.models.xai.request_encoding import (
    XaiRequestEncoder,
    add_extra_fields,
    without_reasoning,
)
from antiphon.protos.xai import Proto, chat_pb2, tokenize_pb2, tokenize_pb2_grpc
from antiphon.turn.protocols import ModelCall, ModelInfo, Token

_Status = grpc.StatusCode

#: The equivalent HTTP status of a gRPC status; all others are 500.
_HTTP_STATUSES = {
    _Status.INVALID_ARGUMENT: 400,
    _Status.OUT_OF_RANGE: 400,
    _Status.FAILED_PRECONDITION: 400,
    _Status.ALREADY_EXISTS: 400,
    _Status.UNAUTHENTICATED: 401,
    _Status.PERMISSION_DENIED: 403,
    _Status.NOT_FOUND: 404,
    _Status.UNIMPLEMENTED: 405,
    _Status.RESOURCE_EXHAUSTED: 429,
    _Status.UNAVAILABLE: 503,
    _Status.DEADLINE_EXCEEDED: 504,
}
#: gRPC has no status for a message that is too big: what its servers in C, Go, Java and Rust say.
_MESSAGE_TOO_LARGE = re.compile(
    r"message (?:larger than max|exceeds maximum size|length too large)", re.IGNORECASE
)
#: Where gRPC itself looks for the file of the authorities it trusts.
_GRPC_ROOTS: Final = "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"
#: gRPC's own retry delay, in milliseconds; below 0: do not retry.
_PUSHBACK = "grpc-retry-pushback-ms"
#: Details of an error in protobuf, a ``google.rpc.Status``.
_DETAILS = "grpc-status-details-bin"
#: What the name of a header consists of, and those that gRPC writes itself.
_METADATA_NAME = re.compile(r"(?!grpc-|user-agent$)[0-9a-z_.-]+(?<!-bin)")


def from_rpc_error(raised: grpc.aio.AioRpcError, errors: ErrorMapper, now: float) -> AttemptError:
    """The failure for a call that ended with an error. ``now``: seconds since 1970."""
    status = raised.code()
    trailers = _text_metadata(raised.trailing_metadata())
    delay = retry_after(trailers, now)
    pushback = _pushback_seconds(trailers)
    for requested in (pushback, _retry_info_seconds(raised.trailing_metadata())):
        if requested is not None and requested >= 0:
            delay = max(delay or 0.0, requested)
    details = raised.details() or ""
    code = 413 if _MESSAGE_TOO_LARGE.search(details) else _HTTP_STATUSES.get(status, 500)
    failure = errors.from_status(
        code,
        f"answered {status.name}",
        details,
        code=trailers.get("x-error-code", ""),
        param=trailers.get("x-error-param", ""),
        retry_after=delay,
    )
    if pushback is not None and pushback < 0:
        # The server forbids retries.
        failure.transient = False
    return failure


def _text_metadata(metadata: grpc.aio.Metadata | None) -> Mapping[str, str]:
    """Metadata by name, with ``retry-after`` under its HTTP name as well."""
    texts = {name: value for name, value in metadata or () if isinstance(value, str)}
    if "retry-after" in texts:
        texts["Retry-After"] = texts["retry-after"]
    return texts


def _pushback_seconds(trailers: Mapping[str, str]) -> float | None:
    """In seconds; None: there is no valid one."""
    try:
        return int(trailers[_PUSHBACK]) / 1000
    except (KeyError, ValueError):
        return None


def _retry_info_seconds(metadata: grpc.aio.Metadata | None) -> float | None:
    """The delay in the details of an error, in seconds; None: there is none."""
    data = next((value for name, value in metadata or () if name == _DETAILS), None)
    if not isinstance(data, bytes):
        return None
    from google.protobuf.message import DecodeError  # loaded on first use
    from google.rpc import (  # type: ignore[import-untyped]  # loaded on first use
        error_details_pb2,
        status_pb2,
    )

    info = error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(data).details:
            if detail.Unpack(info):
                return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        # Further details are not needed, and may be anything.
        pass
    return None


#: Its stub would encode the requests, which are bytes already.
_SERVICE = f"/{chat_pb2.DESCRIPTOR.services_by_name['Chat'].full_name}"
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Retries belong to our retry policy.
    ("grpc.enable_retries", 0),
    ("grpc.primary_user_agent", "antiphon"),
    # Reasoning models are silent for minutes: pings check the connection, as the SDK's do.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The connection timeout, and the delay after a failed connection.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Models of other keys or other loops have connections of their own.
    ("grpc.use_local_subchannel_pool", 1),
)


class XaiGrpcModel:
    """One host, many calls at once. Belongs to the event loop of its first call.

    ``base_url`` is ``https://`` and a host, or ``http://`` for a server without TLS; it has
    no path. ``upstream_name`` replaces the name that a call asks for. ``headers`` go with every
    request as metadata, and ``extra`` are further fields of it, where the API has them.
    ``read_timeout`` is the longest silence, in seconds, before an answer and within it.
    ``credentials`` are for a host with a private certificate.

    Raises ``ConfigError`` for a URL, key or proxy that cannot be used.
    """

    def __init__(  # noqa: PLR0913
        self,
        info: ModelInfo,
        base_url: str,
        api_key: str | None = None,
        *,
        upstream_name: str | None = None,
        read_timeout: float = READ_TIMEOUT,
        headers: Mapping[str, str] = {},
        extra: Mapping[str, Any] = {},
        retry: RetryPolicy | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._info = info
        self._url = _host_url(base_url)
        self._upstream_name = upstream_name
        proxy = find_proxy(str(self._url))
        self._errors = ErrorMapper(
            self._url.authority,
            api_key,
            proxy,
            proxy_may_answer=True,
            other_secrets=header_secrets(headers),
        )
        self._options = (*_CHANNEL_OPTIONS, _proxy_option(proxy))
        self._metadata = _metadata(api_key, headers)
        self._extra = extra
        self._unpassed_fields = UnpassedFields(info.name)
        self._read_timeout = read_timeout
        self._retry = retry or RetryPolicy()
        self._credentials = credentials
        self._encoder = XaiRequestEncoder()
        self._clock = clock
        self._sleep = sleep
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """The model's answer: a batch for each chunk.

        Retried by the retry policy until something has been yielded.
        """
        name = self._upstream_name or call.model
        # Not the HTTP API's: that one need not be able to read this one's reasoning.
        origin = f"grpc://{self._url.authority}/{name}"
        request = self._encoder.encode(self._with_extra(call), name, origin)
        attempts = RetryAttempts(self._retry, self._clock, self._sleep)
        has_output = False
        while True:
            response: _XaiResponse | None = None
            try:
                reader = XaiParser(origin)
                response = self._send(request, stream=call.stream)
                while (message := await response.read()) is not None:
                    if batch := reader.feed(message):
                        # Nothing is sent again.
                        has_output, request = True, b""
                        yield batch
                if not reader.has_finish_reason:
                    raise incomplete_stream()
                yield reader.finish()
                return
            except AttemptError as raised:
                failure = raised
            finally:
                if response is not None:
                    response.cancel()
            if has_output:
                raise failure.error
            if _is_reasoning_refusal(failure) and (other := without_reasoning(request)):
                # The model has none to give, or cannot read its own any more.
                request = other
                continue
            await attempts.wait_or_raise(failure)

    def _with_extra(self, call: ModelCall) -> ModelCall:
        """The call with the fields of every request; names those that the API does not have."""
        extra = {**self._extra, **call.options.extra}
        if not extra:
            return call
        unpassed = add_extra_fields(chat_pb2.GetCompletionsRequest(), extra)
        self._unpassed_fields.report(unpassed)
        extra = {name: value for name, value in extra.items() if name not in unpassed}
        options = msgspec.structs.replace(call.options, extra=extra)
        return msgspec.structs.replace(call, options=options)

    async def count_tokens(self, call: ModelCall) -> int | None:
        """None: the API counts the tokens of a text, not those of a conversation."""
        return None

    async def tokenize(self, model: str, text: str) -> tuple[Token, ...] | None:
        """A text's tokens, without retries. None: the server does not show them."""
        name = self._upstream_name or model
        request = tokenize_pb2.TokenizeTextRequest(text=text, model=name)
        try:
            stub = tokenize_pb2_grpc.TokenizeStub(self._get_channel())
            rpc = stub.TokenizeText(request, metadata=self._metadata)
            response = _XaiResponse(rpc, self._errors, stream=False, timeout=self._read_timeout)
            answer: Any = await response.read()
        except AttemptError as failure:
            if failure.error.code == ENDPOINT_MISSING:
                return None
            raise failure.error from None
        return tuple(Token(one.token_id, one.token_bytes) for one in answer.tokens)

    async def close(self) -> None:
        """Close all connections; calls that still run fail."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    def _send(self, request: bytes, *, stream: bool) -> _XaiResponse:
        """Start one attempt."""
        channel = self._get_channel()
        method: Any = (
            channel.unary_stream(
                f"{_SERVICE}/GetCompletionChunk",
                response_deserializer=chat_pb2.GetChatCompletionChunk.FromString,
            )
            if stream
            else channel.unary_unary(
                f"{_SERVICE}/GetCompletion",
                response_deserializer=chat_pb2.GetChatCompletionResponse.FromString,
            )
        )
        rpc = method(request, metadata=self._metadata)
        return _XaiResponse(rpc, self._errors, stream=stream, timeout=self._read_timeout)

    def _get_channel(self) -> grpc.aio.Channel:
        if self._closed:
            raise _closed_error()
        if self._channel is None:
            target = f"{self._url.raw_host}:{self._url.port}"
            if ":" in (self._url.raw_host or ""):
                target = f"[{self._url.raw_host}]:{self._url.port}"
            if self._url.scheme == "http":
                self._channel = grpc.aio.insecure_channel(target, options=self._options)
            else:
                credentials = self._credentials or _default_credentials()
                self._channel = grpc.aio.secure_channel(target, credentials, options=self._options)
        return self._channel


def _default_credentials() -> grpc.ChannelCredentials:
    """Those of ``SSL_CERT_FILE``, as for other upstreams: gRPC reads a variable of its own."""
    roots = None
    if (path := os.environ.get("SSL_CERT_FILE")) and not os.environ.get(_GRPC_ROOTS):
        # What cannot be read counts for nothing, as in OpenSSL.
        with contextlib.suppress(OSError):
            roots = Path(path).read_bytes()
    return grpc.ssl_channel_credentials(roots or None)


class _XaiResponse:
    """One call, from its request to its end. ``timeout`` is the longest silence, in seconds."""

    def __init__(self, rpc: Any, errors: ErrorMapper, *, stream: bool, timeout: float) -> None:
        self._rpc = rpc
        self._errors = errors
        self._stream = stream
        self._timeout = timeout
        self._is_complete = False

    async def read(self) -> Proto | None:
        """The next message, None at the end. Raises ``AttemptError``."""
        if self._is_complete:
            return None
        # No exception becomes a cause: its text comes from outside and may hold the key.
        try:
            async with asyncio.timeout(self._timeout):
                message = await (self._rpc.read() if self._stream else self._rpc)
        except grpc.aio.AioRpcError as raised:
            failure = from_rpc_error(raised, self._errors, time.time())
        except grpc.aio.UsageError:
            failure = _closed_error()
        except TimeoutError:
            failure = AttemptError(
                ModelTimeoutError("The model fell silent: nothing came in time.")
            )
        except asyncio.CancelledError:
            # A channel that is closed cancels its calls, though nobody cancels ours.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            failure = _closed_error()
        else:
            self._is_complete = not self._stream or message is grpc.aio.EOF
            return None if message is grpc.aio.EOF else message
        raise failure

    def cancel(self) -> None:
        """Cancel the call; does nothing after its end."""
        self._rpc.cancel()


def _closed_error() -> AttemptError:
    return AttemptError(ModelUnavailableError("This model has been closed."))


def _is_reasoning_refusal(failure: AttemptError) -> bool:
    error = failure.error
    return (
        type(error) is InvalidRequestError
        and "encrypted" in f"{error.code} {error.message}".lower()
    )


def _host_url(base_url: str) -> URL:
    url = parse_http_url(base_url)
    if url is None or url.user is not None or url.password is not None:
        # Not quoted: a malformed URL may hold a password.
        raise ConfigError("The host cannot be used: it should look like api.x.ai.")
    if url.raw_path not in ("", "/") or url.raw_query_string or url.raw_fragment:
        raise ConfigError(f"gRPC has no paths: give {url.host} alone as the base URL.")
    return url


def _proxy_option(proxy: Proxy | None) -> tuple[str, str | int]:
    """The channel option for the proxy: gRPC's own lookup would use one for this machine, too."""
    if proxy is None:
        return ("grpc.enable_http_proxy", 0)
    if proxy.scheme != "http":
        raise ConfigError(f"gRPC does not go by a proxy that speaks TLS, as {proxy.url} does.")
    user = f"{proxy.userinfo.reveal()}@" if proxy.userinfo else ""
    return ("grpc.http_proxy", f"http://{user}{proxy.address}")


def _metadata(api_key: str | None, headers: Mapping[str, str] = {}) -> tuple[tuple[str, str], ...]:
    """The key and other headers; gRPC wants their names in lower case. Raises ``ConfigError``."""
    for name in headers:
        if not _METADATA_NAME.fullmatch(name.lower()):
            raise ConfigError(f"The header {name} cannot be sent by gRPC: leave it out.")
    metadata = {"authorization": authorization_header(api_key)} if api_key else {}
    metadata |= {name.lower(): value for name, value in headers.items()}
    return tuple(metadata.items())
