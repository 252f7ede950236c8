"""A model behind an HTTP endpoint: connections, tries, and when to try again.

What is said there is a dialect's business (``chat_completions``, ``responses``).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, ClassVar

import aiohttp
from yarl import URL

from antiphon.core.deltas import Delta
from antiphon.core.proxies import Proxy, find_proxy
from antiphon.errors import ConfigError, ModelUnavailableError
from antiphon.models.model_list import decode_model_list
from antiphon.models.openai.upstream_errors import FOREIGN, Translator, Unreadable
from antiphon.models.openai.upstream_response import (
    AnswerReader,
    Drain,
    Exchange,
    read_refusal,
    read_start,
)
from antiphon.models.retry import Attempts, Failure, RetryPolicy
from antiphon.models.upstream_url import bearer, url_of
from antiphon.turn.protocols import ModelCall, ModelInfo

#: How long an unused connection is kept, in seconds: a person thinks between two turns.
_KEEP_ALIVE = 60.0
#: How often a call is put in other words because the upstream refuses it as it is.
_MENDS = 2
#: How long the list of models may take, in seconds, and its bytes.
_LIST_TIME = 5.0
_LONGEST_LIST = 4 * 1024 * 1024


class UpstreamModel(ABC):
    """One endpoint, many calls at once. Belongs to the event loop of its first call.

    ``base_url`` ends before the dialect's ``path``; a query in it is kept.
    ``upstream_name`` replaces the name that a call asks for. ``read_timeout`` is the
    longest silence, in seconds, before an answer and within it: reasoning models
    think for minutes. Redirects are not followed, so the key goes nowhere else. Which
    proxy is between is looked up once, see ``find_proxy``.

    Raises ``ConfigError`` for a URL, key or proxy that cannot be used.
    """

    #: What the dialect's requests are sent to, below the base URL.
    path: ClassVar[str]

    def __init__(  # noqa: PLR0913
        self,
        info: ModelInfo,
        base_url: str,
        api_key: str | None = None,
        *,
        upstream_name: str | None = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 600.0,
        retry: RetryPolicy | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._info = info
        self._url = _endpoint(base_url, self.path)
        self._list_url = _endpoint(base_url, "/models")
        self._upstream_name = upstream_name
        proxy = find_proxy(str(self._url))
        in_the_clear = self._url.scheme == "http"
        self._errors = Translator(self._url.authority, api_key, proxy, mixed=in_the_clear)
        self._headers = _headers(api_key)
        self._by_proxy = _by_proxy(proxy, self._url, self._headers) if proxy else {}
        self._timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=connect_timeout, sock_read=read_timeout
        )
        self._retry = retry or RetryPolicy()
        self._clock = clock
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None
        self._drain = Drain()
        self._closed = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    @abstractmethod
    def _body(self, call: ModelCall) -> bytes:
        """The request's JSON."""

    @abstractmethod
    def _reader(self, call: ModelCall) -> AnswerReader:
        """What reads one answer to a call."""

    def _mended(self, call: ModelCall, body: bytes, failure: Failure) -> bytes | None:
        """Another body in place of one that failed, if that is worth trying at once."""
        return None

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """The model's answer: all that arrives in one read is one batch.

        Tried again, as the retry policy says, until something has been yielded.
        """
        body = self._body(call)
        attempts = Attempts(self._retry, self._clock, self._sleep)
        mends, answered = 0, False
        while True:
            exchange: Exchange | None = None
            try:
                response = await self._ask(body)
                exchange = Exchange(
                    response, self._errors, self._reader(call), streamed=call.stream
                )
                while not exchange.over:
                    batch = await exchange.read()
                    if batch:
                        answered = True
                        yield batch
                exchange.check()
                return
            except Failure as raised:
                failure = raised
            finally:
                if exchange is not None and not exchange.let_go():
                    self._drain.add(exchange.response)
            if answered:
                raise failure.error
            mended = self._mended(call, body, failure) if mends < _MENDS else None
            if mended is not None:
                body, mends = mended, mends + 1
                continue
            await attempts.again(failure)

    async def model_names(self) -> list[str]:
        """The models that the endpoint lists. Asked once. Raises ``Failure``."""
        session = self._open()
        try:
            async with asyncio.timeout(_LIST_TIME):
                response = await session.get(
                    self._list_url, allow_redirects=False, **self._by_proxy
                )
                body = await read_start(response, _LONGEST_LIST)
        except FOREIGN as raised:
            raise self._errors.foreign(raised) from None
        if response.status != 200:
            raise self._errors.answer(response.status, response.headers, body, time.time())
        try:
            return decode_model_list(body)
        except Unreadable as failure:
            raise self._errors.unreadable(failure) from None

    @property
    def where(self) -> str:
        """The endpoint's host and port."""
        return self._url.authority

    async def count(self, call: ModelCall) -> int | None:
        """None: an endpoint has no tokenizer that can be asked."""
        return None

    async def close(self) -> None:
        """Close all connections; calls that still run fail."""
        self._closed = True
        self._drain.close()
        if self._session is not None:
            await self._session.close()

    async def _ask(self, body: bytes) -> aiohttp.ClientResponse:
        """One try, up to the first byte of the answer. Raises ``Failure``."""
        session = self._open()
        try:
            response = await session.post(
                self._url, data=body, allow_redirects=False, **self._by_proxy
            )
        except FOREIGN as raised:
            raise self._errors.foreign(raised) from None
        if response.status != 200:
            refusal = await read_refusal(response)
            raise self._errors.answer(response.status, response.headers, refusal, time.time())
        return response

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Failure(ModelUnavailableError("This model has been closed."))
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                # A session tells its own headers to proxies, too, the key among them.
                headers=None if self._by_proxy else self._headers,
                timeout=self._timeout,
            )
        return self._session


def _endpoint(base_url: str, path: str) -> URL:
    url = url_of(base_url)
    if url is None:
        # Not shown: an odd one may hold a password.
        raise ConfigError("The base URL cannot be used: it should look like https://host/v1.")
    if url.user is not None or url.password is not None:
        raise ConfigError("The base URL holds a user or password; give the key as the API key.")
    whole = url.raw_path.rstrip("/") + path
    return url.with_path(whole, encoded=True, keep_query=True).with_fragment(None)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        # A compressing proxy would hold tokens back.
        "Accept-Encoding": "identity",
        "User-Agent": "antiphon",
    }
    if api_key:
        headers["Authorization"] = bearer(api_key)
    return headers


def _by_proxy(proxy: Proxy, url: URL, headers: dict[str, str]) -> dict[str, Any]:
    """What a request by a proxy is given besides.

    Of one to ``https`` the proxy sees only the request for a tunnel. One to ``http`` it reads
    itself, the key with it, and takes out what is its own.
    """
    if url.scheme == "http":
        return {"proxy": proxy.url, "headers": {**headers, **proxy.headers()}}
    told = {"User-Agent": headers["User-Agent"], **proxy.headers()}
    return {"proxy": proxy.url, "headers": headers, "proxy_headers": told}
