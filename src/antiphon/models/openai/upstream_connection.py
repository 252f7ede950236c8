"""Upstream connections: sends one request over a pooled connection and reads its response.

aiohttp does what is hard: its connector opens, secures, proxies and pools connections, and its
parser reads HTTP. What its client session adds to a request (redirects, cookies, middlewares,
traces, bodies of all kinds) costs more than both, and nothing here needs it: a request's head
is the same bytes each time but for its length, and its body is bytes already.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

import aiohttp
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from antiphon.core.http_proxies import Proxy

#: How long an idle connection stays open, in seconds: a person pauses between two turns.
_KEEP_ALIVE_SECONDS = 60.0
#: From how many bytes on a body is not copied to be sent in one piece with its head.
_LONG_BODY = 64 * 1024
_Method = Literal["GET", "POST"]


class UpstreamConnectionPool:
    """The connections to one upstream. Belongs to the event loop of its first request.

    ``headers`` go with every request. Redirects are not followed, and bodies come as they were
    sent, compressed or not.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        proxy: Proxy | None,
        *,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        self._headers = headers
        self._proxy = proxy
        self._read_timeout = read_timeout
        self._connect_timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._connector: aiohttp.TCPConnector | None = None
        self._heads: dict[tuple[_Method, URL], bytes] = {}
        #: What the connector is told of a request, by its URL: nothing in it changes.
        self._targets: dict[URL, aiohttp.ClientRequest] = {}
        #: Long bodies that are still being sent.
        self._uploads: set[asyncio.Task[None]] = set()

    async def send(self, method: _Method, url: URL, body: bytes = b"") -> HttpResponse:
        """One request, up to its response's headers. Raises what is in ``CLIENT_ERRORS``.

        A ``GET`` is repeated once where a connection from the pool turns out to be closed.
        """
        try:
            return await self._send(method, url, body)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            if method != "GET":
                raise
        return await self._send(method, url, body)

    async def _send(self, method: _Method, url: URL, body: bytes) -> HttpResponse:
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
        try:
            connection = await self._connector.connect(
                self._target(url), traces=[], timeout=self._connect_timeout
            )
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {url.authority}") from error
        try:
            self._write(connection, self._head(method, url) % len(body), body)
            return await HttpResponse.receive(connection, self._read_timeout)
        except BaseException:
            connection.close()
            raise

    async def close(self) -> None:
        """Close all connections; what still runs fails."""
        if self._connector is not None:
            await self._connector.close()

    def _target(self, url: URL) -> aiohttp.ClientRequest:
        target = self._targets.get(url)
        if target is None:
            proxy = self._proxy
            proxy_headers = None
            if proxy is not None and url.scheme == "https":
                # It sees only the request for a tunnel.
                proxy_headers = {"User-Agent": self._headers["User-Agent"], **proxy.headers()}
            target = aiohttp.ClientRequest(
                "GET",
                url,
                loop=asyncio.get_running_loop(),
                proxy=None if proxy is None else URL(proxy.url),
                proxy_headers=proxy_headers,
            )
            if proxy is None:
                # The connector changes those that go through a proxy.
                self._targets[url] = target
        return target

    def _head(self, method: _Method, url: URL) -> bytes:
        """The request line and the headers, with ``%d`` for the body's length."""
        head = self._heads.get((method, url))
        if head is None:
            headers = {**self._headers}
            path = url.raw_path_qs
            if self._proxy is not None and url.scheme == "http":
                # The proxy reads all of it, and removes its own headers.
                path = str(url)
                headers |= self._proxy.headers()
            if not any(name.lower() == "host" for name in headers):
                headers = {"Host": url.host_port_subcomponent or "", **headers}
            lines = [f"{method} {path} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            text = "\r\n".join(lines).replace("%", "%%")
            head = self._heads[method, url] = f"{text}\r\nContent-Length: %d\r\n\r\n".encode()
        return head

    def _write(self, connection: Connection, head: bytes, body: bytes) -> None:
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            raise aiohttp.ClientConnectionResetError("Cannot write to a closed connection")
        protocol.set_response_params(
            read_until_eof=True, auto_decompress=False, read_timeout=self._read_timeout
        )
        if len(body) < _LONG_BODY:
            protocol.transport.write(head + body)
        else:
            protocol.transport.write(head)
            protocol.transport.write(body)
        if not protocol.writing_paused:
            protocol.start_timeout()
            return
        # The upstream is not silent while it has not been sent everything.
        upload = asyncio.create_task(_start_timeout_when_sent(connection))
        self._uploads.add(upload)
        upload.add_done_callback(self._uploads.discard)


async def _start_timeout_when_sent(connection: Connection) -> None:
    protocol = connection.protocol
    if protocol is not None:
        try:
            await protocol._drain_helper()
        except (aiohttp.ClientError, ConnectionError):
            # Whoever reads the response learns that the connection is lost.
            return
        protocol.start_timeout()


class HttpResponse:
    """A response, whose body can be read in pieces as they arrive.

    Its connection goes back to the pool at the body's end, and is closed by ``close``.
    ``read_timeout`` is the longest silence of the upstream, in seconds.
    """

    def __init__(
        self,
        connection: Connection,
        message: RawResponseMessage,
        content: aiohttp.StreamReader,
        read_timeout: float,
    ) -> None:
        self.status: Final = message.code
        self.headers: Final = message.headers
        self.content: Final = content
        self._connection = connection
        self._read_timeout = read_timeout
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        #: Since when a piece is waited for, by the loop's clock.
        self._waiting_since: float | None = None
        content.on_eof(self._release)

    @classmethod
    async def receive(cls, connection: Connection, read_timeout: float) -> HttpResponse:
        """The response to what was sent on a connection."""
        protocol = connection.protocol
        assert protocol is not None
        while True:
            message, content = await protocol.read()
            # Not those that announce another one.
            if message.code >= 200 or message.code == 101:
                # The protocol's timer would be set anew with each piece.
                protocol.read_timeout = None
                return cls(connection, message, content, read_timeout)

    async def read(self) -> bytes:
        """What has arrived, at least one byte; none: the end. Raises ``CLIENT_ERRORS``."""
        content = self.content
        data = content.read_nowait()
        if data or content.is_eof():
            return data
        self._waiting_since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._read_timeout, self._check_silence)
        try:
            return await content.readany()
        finally:
            self._waiting_since = None

    @property
    def charset(self) -> str | None:
        """The declared one."""
        return _find_charset(self.headers.get("Content-Type", ""))

    def close(self) -> None:
        """Close the connection, if the body has not been read to its end."""
        self._stop_timer()
        self._connection.close()

    def _release(self) -> None:
        self._stop_timer()
        protocol = self._connection.protocol
        if protocol is not None and protocol.writing_paused:
            # The upstream has answered before it had the whole request.
            protocol.force_close()
        self._connection.release()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check_silence(self) -> None:
        silence = 0.0
        if self._waiting_since is not None:
            silence = self._loop.time() - self._waiting_since
        rest = self._read_timeout - silence
        if rest > 0:
            self._timer = self._loop.call_later(rest, self._check_silence)
        else:
            self.content.set_exception(aiohttp.SocketTimeoutError("No data came in time"))


@lru_cache(maxsize=64)
def _find_charset(content_type: str) -> str | None:
    found = re.search(r";\s*charset\s*=\s*[\"']?([\w.:+-]+)", content_type, re.I)
    return found and found[1]
