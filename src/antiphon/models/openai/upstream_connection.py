"""Upstream connections: sends one request over a pooled connection and reads its response.

aiohttp does what is hard: its connector opens, secures, proxies and pools connections. What its
client session adds to a request (redirects, cookies, middlewares, traces, bodies of all kinds)
costs more than that, and nothing here needs it: a request's head is the same bytes each time but
for its length, and its body is bytes already. Its response is read by ``http_response``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Literal

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from antiphon.core.http_proxies import Proxy
from antiphon.models.openai.http_response import HttpResponse, ResponseProtocol

#: How long an idle connection stays open, in seconds: a person pauses between two turns.
_KEEP_ALIVE_SECONDS = 60.0
#: How long connections are kept at hand before the connector gets them back, in seconds.
_AT_HAND_SECONDS = 1.0
#: From how many bytes on a body is not copied to be sent in one piece with its head.
_LONG_BODY = 64 * 1024
_Method = Literal["GET", "POST"]


def _make_protocol(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return ResponseProtocol(loop)


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
        #: Connections that wait for the next request, and the timer that ends their wait here: the
        #: connector takes as long to take one back and to find it as all else that is done with it.
        self._at_hand: list[Connection] = []
        self._at_hand_timer: asyncio.TimerHandle | None = None
        self._heads: dict[tuple[_Method, URL], bytes] = {}
        #: What the connector is told of a request, by its URL: nothing in it changes.
        self._targets: dict[URL, aiohttp.ClientRequest] = {}

    async def get(self, url: URL) -> HttpResponse:
        """As ``send`` without a body; repeated once where a connection turns out to be closed."""
        try:
            return await self.send("GET", url)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            return await self.send("GET", url)

    async def send(self, method: _Method, url: URL, body: bytes = b"") -> HttpResponse:
        """One request, up to its response's headers. Raises what is in ``client_errors``."""
        head = self._head(method, url) % len(body)
        connection = self._take_at_hand() or await self._connect(url)
        protocol = connection.protocol
        transport = None if protocol is None else protocol.transport
        if transport is None or transport.is_closing():
            connection.close()
            raise aiohttp.ClientConnectionResetError("Cannot write to a closed connection")
        assert isinstance(protocol, ResponseProtocol), "the connector makes no others"
        response = HttpResponse(connection, protocol, self._read_timeout, self._keep_at_hand)
        try:
            if len(body) < _LONG_BODY:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
            while not response.status:
                await response.wait()
        except BaseException:
            response.close()
            raise
        return response

    async def close(self) -> None:
        """Close all connections; what still runs fails."""
        self._give_back()
        if self._connector is not None:
            await self._connector.close()

    async def _connect(self, url: URL) -> Connection:
        """A connection of the connector, one that is open already or a new one."""
        if self._connector is None:
            self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
            self._connector._factory = partial(_make_protocol, asyncio.get_running_loop())
        try:
            return await self._connector.connect(
                self._target(url), traces=[], timeout=self._connect_timeout
            )
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {url.authority}") from error

    def _take_at_hand(self) -> Connection | None:
        """A connection that is at hand and open; None: there is none."""
        while self._at_hand:
            connection = self._at_hand.pop()
            if not connection.closed:
                return connection
            connection.close()
        return None

    def _keep_at_hand(self, connection: Connection) -> None:
        """Keep a connection for the next request: all are to the same upstream."""
        connector = self._connector
        if connector is None or connector.closed:
            connection.close()
            return
        self._at_hand.append(connection)
        if self._at_hand_timer is None:
            loop = asyncio.get_running_loop()
            self._at_hand_timer = loop.call_later(_AT_HAND_SECONDS, self._give_back)

    def _give_back(self) -> None:
        """Give the connector what is at hand: it closes connections that wait for long."""
        if self._at_hand_timer is not None:
            self._at_hand_timer.cancel()
            self._at_hand_timer = None
        connections, self._at_hand = self._at_hand, []
        for connection in connections:
            connection.release()

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
