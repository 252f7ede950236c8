"""A model behind any OpenAI-compatible ``/chat/completions`` endpoint."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

import aiohttp
from yarl import URL

from antiphon.core.deltas import Delta
from antiphon.errors import ConfigError, ModelUnavailable
from antiphon.models.chat_errors import FOREIGN, Translator
from antiphon.models.chat_exchange import Drain, Exchange, read_refusal
from antiphon.models.chat_wire import RequestWriter
from antiphon.models.retry import Failure, RetryPolicy
from antiphon.turn.ports import ModelCall, ModelInfo

#: How long an unused connection is kept, in seconds: a person thinks between two turns.
_KEEP_ALIVE = 60.0


class ChatCompletionsModel:
    """One endpoint, many calls at once. Belongs to the event loop of its first call.

    ``base_url`` ends before ``/chat/completions``; a query in it is kept.
    ``upstream_name`` replaces the name that a call asks for. ``read_timeout`` is the
    longest silence, in seconds, before an answer and within it: reasoning models
    think for minutes. Redirects are not followed, so the key goes nowhere else.

    Raises ``ConfigError`` for a URL or key that cannot be used.
    """

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
        self._url = _endpoint(base_url)
        host = self._url.host or ""
        self._writer = RequestWriter(upstream_name=upstream_name, openai=_is_openai(host))
        self._errors = Translator(self._url.authority, api_key)
        self._headers = _headers(api_key)
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

    async def generate(self, call: ModelCall) -> AsyncGenerator[Sequence[Delta], None]:
        """The model's answer: all that arrives in one read is one batch.

        Tried again, as the retry policy says, until something has been yielded.
        """
        body = self._writer.body(call)
        began, failed, answered = self._clock(), 0, False
        while True:
            exchange: Exchange | None = None
            try:
                exchange = await self._ask(body, stream=call.stream)
                while not exchange.over:
                    batch = await exchange.read()
                    if batch:
                        answered = True
                        yield batch
                exchange.check()
                return
            except Failure as raised:
                failure = raised
            except FOREIGN as raised:
                failure = self._errors.foreign(raised)
            finally:
                if exchange is not None and not exchange.let_go():
                    self._drain.add(exchange.response)
            failed += 1
            wait = None
            if not answered:
                elapsed, luck = self._clock() - began, random.random()  # noqa: S311
                wait = self._retry.wait(failure, failed=failed, elapsed=elapsed, luck=luck)
            if wait is None:
                raise failure.error
            await self._sleep(wait)

    async def count(self, call: ModelCall) -> int | None:
        """None: an endpoint has no tokenizer that can be asked."""
        return None

    async def close(self) -> None:
        """Close all connections; calls that still run fail."""
        self._closed = True
        self._drain.close()
        if self._session is not None:
            await self._session.close()

    async def _ask(self, body: bytes, *, stream: bool) -> Exchange:
        """One try, up to the first byte of the answer."""
        response = await self._open().post(self._url, data=body, allow_redirects=False)
        if response.status != 200:
            refusal = await read_refusal(response)
            raise self._errors.answer(response.status, response.headers, refusal, time.time())
        return Exchange(response, self._errors, streamed=stream)

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Failure(ModelUnavailable("This model has been closed."))
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=self._timeout,
            )
        return self._session


def _endpoint(base_url: str) -> URL:
    try:
        url = URL(base_url)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        # Not shown: an odd one may hold a password.
        raise ConfigError("The base URL cannot be used: it should look like https://host/v1.")
    if url.user is not None or url.password is not None:
        raise ConfigError("The base URL holds a user or password; give the key as the API key.")
    path = url.raw_path.rstrip("/") + "/chat/completions"
    return url.with_path(path, encoded=True, keep_query=True).with_fragment(None)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        # A compressing proxy would hold tokens back.
        "Accept-Encoding": "identity",
        "User-Agent": "antiphon",
    }
    if api_key:
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise ConfigError("The API key holds characters that no key has: check it.")
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


def _is_openai(host: str) -> bool:
    return host == "api.openai.com" or host.endswith((".api.openai.com", ".openai.azure.com"))
