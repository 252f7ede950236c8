"""Upstream model: an HTTP endpoint as a model, with connection pool, proxy support and retries.

The request and the answer are a dialect's (``chat_completions``, ``responses``). The
endpoint's model list has OpenAI's shape, as Ollama, llama.cpp, LM Studio and vLLM send it.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from yarl import URL

from antiphon.core.deltas import Delta, OutputTextDelta
from antiphon.core.http_proxies import find_proxy
from antiphon.errors import ConfigError, ModelNotFoundError, ModelUnavailableError
from antiphon.models.openai.refusal_rules import LearnedRules, repair_request
from antiphon.models.openai.request_rules import fit_request
from antiphon.models.openai.sse import DECODE_ERRORS
from antiphon.models.openai.tokenize_text import (
    MISSING_STATUSES,
    TOKENIZE_PATH,
    decode_tokens,
    encode_tokenize_request,
)
from antiphon.models.openai.upstream_errors import ErrorMapper, Unreadable, client_errors
from antiphon.models.openai.upstream_response import (
    ConnectionDrainer,
    ResponseParser,
    UpstreamResponse,
    read_error_body,
    read_start,
)
from antiphon.models.retry import AttemptError, RetryAttempts, RetryPolicy
from antiphon.turn.protocols import ModelCall, ModelInfo, Token

if TYPE_CHECKING:
    from antiphon.models.openai.http_response import HttpResponse
    from antiphon.models.openai.upstream_connection import UpstreamConnectionPool

#: The longest silence of an upstream by default, in seconds.
READ_TIMEOUT: Final = 600.0
#: How often a refused request is rewritten and sent again.
_MAX_REPAIRS = 8
#: The limits of a model list: seconds, and bytes.
_LIST_TIME = 5.0
_LONGEST_LIST = 4 * 1024 * 1024


class UpstreamModel(ABC):
    """One endpoint, many calls at once. Belongs to the event loop of its first call.

    ``base_url`` ends before the dialect's ``path``; a query in it stays.
    ``upstream_name`` replaces the name that a call asks for. ``read_timeout`` is the
    longest silence, in seconds, before an answer and within it: reasoning models
    think for minutes. ``headers`` go with every request, and ``extra`` are further fields of
    its body, under what a call sets. Redirects are not followed, so the key goes nowhere else. The
    proxy is looked up once, see ``find_proxy``. ``quirks`` are the ``request_rules`` that its
    requests need; more are learnt from what it refuses.

    Raises ``ConfigError`` for a URL, key or proxy that cannot be used.
    """

    #: What the dialect's requests are sent to, below the base URL.
    path: ClassVar[str]
    #: As in ``ModelInfo``.
    runs_hosted_tools: ClassVar[bool] = False

    def __init__(  # noqa: PLR0913
        self,
        info: ModelInfo,
        base_url: str,
        api_key: str | None = None,
        *,
        upstream_name: str | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = READ_TIMEOUT,
        headers: Mapping[str, str] = {},
        extra: Mapping[str, Any] = {},
        quirks: Collection[str] = (),
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._info = msgspec.structs.replace(info, runs_hosted_tools=self.runs_hosted_tools)
        self._url = _endpoint_url(base_url, self.path)
        self._tokenize_url = _endpoint_url(base_url, TOKENIZE_PATH)
        self._list_url = _endpoint_url(base_url, "/models")
        self._upstream_name = upstream_name
        proxy = find_proxy(str(self._url))
        in_the_clear = self._url.scheme == "http"
        self._errors = ErrorMapper(
            self._url.authority,
            api_key,
            proxy,
            proxy_may_answer=in_the_clear,
            other_secrets=header_secrets(headers),
        )
        self._extra = extra
        self._connections: UpstreamConnectionPool | None = None
        self._connection_options: dict[str, Any] = {
            "headers": _headers(api_key, headers),
            "proxy": proxy,
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
        }
        self._rules = LearnedRules(self._url.authority, quirks)
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._drainer = ConnectionDrainer()
        self._closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @abstractmethod
    def _request_body(self, call: ModelCall) -> bytes:
        """The request's JSON."""

    def _parse_plain(self, body: bytes) -> list[Delta] | None:
        """The deltas of a whole answer that needs no parser; None: it may be another."""
        return None

    @abstractmethod
    def _create_parser(self, call: ModelCall) -> ResponseParser:
        """A parser for one answer to a call."""

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """The model's answer: each read of the connection is one batch.

        Retried by the retry policy until something has been yielded.
        """
        request, name = self._request_body(call), self._upstream_name or call.model
        rules = self._rules.of(name)
        body = fit_request(request, rules)
        attempts = RetryAttempts(self._retry, self._clock, self._sleep)
        repairs, has_output = 0, False
        while True:
            upstream_response: UpstreamResponse | None = None
            try:
                response = await self._send(body)
                upstream_response = UpstreamResponse(
                    response, self._errors, self._parse_plain, partial(self._create_parser, call)
                )
                while not upstream_response.is_complete:
                    batch = await upstream_response.read()
                    if batch:
                        # Nothing is sent again: of a long history it is most of what a call holds.
                        has_output, request, body = True, b"", b""
                        yield batch
                        if call.gather_seconds and type(batch[-1]) is OutputTextDelta:
                            await upstream_response.gather(call.gather_seconds)
                upstream_response.raise_for_error()
                self._rules.remember(name, rules)
                return
            except AttemptError as raised:
                failure = raised
            finally:
                if upstream_response is not None and not upstream_response.release():
                    self._drainer.add(upstream_response.response)
            if has_output:
                raise failure.error
            if repairs < _MAX_REPAIRS and (
                repaired := repair_request(request, rules, failure.error)
            ):
                (body, rules), repairs = repaired, repairs + 1
                continue
            if isinstance(failure.error, ModelNotFoundError):
                failure.error.message += await self._listed_models()
            await attempts.wait_or_raise(failure)

    async def _listed_models(self) -> str:
        """A sentence that names the models there are, for an error message."""
        try:
            names = await self.model_names()
        except AttemptError:
            return ""
        return f" {self.where} has {_shorten_names(names)}." if names else ""

    async def model_names(self) -> list[str]:
        """The models that the endpoint lists, without retries. Raises ``AttemptError``."""
        connections = await self._open_connections()
        try:
            async with asyncio.timeout(_LIST_TIME):
                response = await connections.get(self._list_url)
                body = await read_start(response, _LONGEST_LIST)
        except client_errors() as raised:
            raise self._errors.from_exception(raised) from None
        except Unreadable as failure:
            raise self._errors.unreadable(failure) from None
        if response.status != 200:
            raise self._errors.from_response(response.status, response.headers, body, time.time())
        try:
            return decode_model_list(body)
        except Unreadable as failure:
            raise self._errors.unreadable(failure) from None

    async def tokenize(self, model: str, text: str) -> tuple[Token, ...] | None:
        """A text's tokens, where the endpoint shows them as xAI's does; without retries."""
        request = encode_tokenize_request(self._upstream_name or model, text)
        try:
            connections = await self._open_connections()
            response = await connections.send("POST", self._tokenize_url, request)
            body = await read_start(response, _LONGEST_LIST)
        except AttemptError as closed:
            raise closed.error from None
        except client_errors() as raised:
            raise self._errors.from_exception(raised).error from None
        if response.status in MISSING_STATUSES:
            return None
        if response.status != 200:
            failure = self._errors.from_response(
                response.status, response.headers, body, time.time()
            )
            raise failure.error
        try:
            return decode_tokens(body)
        except Unreadable as unreadable:
            raise self._errors.unreadable(unreadable).error from None

    @property
    def where(self) -> str:
        """The endpoint's host and port."""
        return self._url.authority

    async def warm(self) -> None:
        """Load the HTTP client before the first call."""
        await asyncio.to_thread(_load_connection_pool)

    async def count_tokens(self, call: ModelCall) -> int | None:
        """None: an endpoint offers no tokenizer."""
        return None

    async def close(self) -> None:
        """Close all connections; calls that still run fail."""
        self._closed = True
        self._drainer.close()
        if self._connections is not None:
            await self._connections.close()

    async def _send(self, body: bytes) -> HttpResponse:
        """One attempt, up to the response's headers. Raises ``AttemptError``."""
        connections = self._connections
        if connections is None or self._closed:
            connections = await self._open_connections()
        try:
            response = await connections.send("POST", self._url, body)
        except client_errors() as raised:
            raise self._errors.from_exception(raised) from None
        if not 200 <= response.status < 300:
            refusal = await read_error_body(response)
            raise self._errors.from_response(
                response.status, response.headers, refusal, time.time()
            )
        return response

    async def _open_connections(self) -> UpstreamConnectionPool:
        if self._connections is None:
            # By a thread: the HTTP client reads all certificates of the system as it is loaded.
            pool = await asyncio.to_thread(_load_connection_pool)
            if self._connections is None:
                self._connections = pool(**self._connection_options)
        if self._closed:
            raise AttemptError(ModelUnavailableError("This model has been closed."))
        return self._connections


def _load_connection_pool() -> type[UpstreamConnectionPool]:
    from antiphon.models.openai.upstream_connection import (  # loaded on first use
        UpstreamConnectionPool,
    )

    return UpstreamConnectionPool


def _endpoint_url(base_url: str, path: str) -> URL:
    url = parse_http_url(base_url)
    if url is None:
        # Not quoted: a malformed URL may hold a password.
        raise ConfigError("The base URL cannot be used: it should look like https://host/v1.")
    if url.user is not None or url.password is not None:
        raise ConfigError("The base URL holds a user or password; give the key as the API key.")
    full_path = url.raw_path.rstrip("/") + path
    return url.with_path(full_path, encoded=True, keep_query=True).with_fragment(None)


#: The length from which a header's value may be a key: shorter ones are words like any others.
_SECRET_LENGTH: Final = 12


def header_secrets(headers: Mapping[str, str]) -> list[str]:
    """The values that no message may show."""
    return [value for value in headers.values() if len(value) >= _SECRET_LENGTH]


def _headers(api_key: str | None, others: Mapping[str, str]) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        # A compressing proxy would hold tokens back.
        "Accept-Encoding": "identity",
        "User-Agent": "antiphon",
    }
    if api_key:
        headers["Authorization"] = authorization_header(api_key)
    set_names = {name.lower() for name in others}
    return {name: it for name, it in headers.items() if name.lower() not in set_names} | {**others}


def parse_http_url(text: str) -> URL | None:
    """An ``http`` or ``https`` URL with a host; None: the text is no such URL."""
    try:
        url = URL(text)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        return None
    return url if usable else None


def authorization_header(api_key: str) -> str:
    """The ``Authorization`` header's value. Raises ``ConfigError``."""
    if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
        raise ConfigError("The API key holds characters that no key has: check it.")
    return f"Bearer {api_key}"


#: How many names an error message lists, and the length limit of one, in characters.
_SHOWN: Final = 20
_LONGEST_NAME: Final = 200


class _Model(msgspec.Struct, frozen=True):
    id: str


class _List(msgspec.Struct, frozen=True):
    #: Ollama sends null for an empty list.
    data: list[_Model] | None


_decode = msgspec.json.Decoder(_List).decode


def decode_model_list(body: bytes) -> list[str]:
    """The models' names in their order, each once. Raises ``AttemptError``.

    Unprintable and overlong names are left out.
    """
    try:
        models = _decode(body).data or []
    except DECODE_ERRORS as error:
        raise Unreadable(str(error), body, error) from None
    names = [model.id for model in models]
    usable = [name for name in names if name.isprintable() and 0 < len(name) <= _LONGEST_NAME]
    return list(dict.fromkeys(usable))


def why_undecided(where: str, names: Sequence[str]) -> str:
    """The error message for a request without a model, unless the endpoint lists exactly one."""
    if not names:
        return f"Name a model: {where} lists none."
    return f"Name a model: {where} has {_shorten_names(names)}."


def _shorten_names(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def why_unknown(where: str, failure: AttemptError) -> str:
    """The same, where the list could not be fetched."""
    return f"Name a model: {where} does not say which it has. {failure.error.message}"
