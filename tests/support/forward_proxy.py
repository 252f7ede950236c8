"""A real HTTP proxy on a free port of 127.0.0.1, as companies have them.

    async with ForwardProxy({"upstream.test": upstream.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)

Hosts are where it says, on this machine: a name that nobody else knows proves that a request
went by the proxy. ``requests`` are the first lines and headers that it was sent. ``status``
is what it refuses with instead; ``user`` is whom it lets pass, as ``name:password``.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping

import msgspec

from support.local_server import LocalServer, close_writer


class ProxyRequest(msgspec.Struct, frozen=True):
    """A request to the proxy: for a tunnel to ``host:port``, or for a URL."""

    method: str
    target: str
    headers: dict[str, str]


class ForwardProxy(LocalServer):
    """The proxy. Each connection serves one tunnel or one request."""

    def __init__(
        self,
        hosts: Mapping[str, int],
        *,
        user: str | None = None,
        status: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls=tls)
        self._hosts = hosts
        self._user = user
        self._status = status
        self.requests: list[ProxyRequest] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """As it is set in a variable, with whom it lets pass."""
        user = f"{self._user}@" if self._user else ""
        return f"{'https' if self._tls else 'http'}://{user}{self.address}"

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = await _read(reader)
        self.requests.append(request)
        if (status := self._error_status(request)) is not None:
            writer.write(b"HTTP/1.1 %d No\r\ncontent-length: 0\r\n\r\n" % status)
            await writer.drain()
            return
        address = request.target.removeprefix("http://").partition("/")[0]
        host = address.rpartition(":")[0] or address
        inner = await asyncio.open_connection("127.0.0.1", self._hosts[host])
        if request.method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            inner[1].write(_forwarded_request(request, address))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, inner[1]))
                group.create_task(_copy(inner[0], writer))
        except* OSError:
            pass
        finally:
            await close_writer(inner[1])

    def _error_status(self, request: ProxyRequest) -> int | None:
        token = base64.b64encode((self._user or "").encode()).decode()
        if self._user and request.headers.get("proxy-authorization") != f"Basic {token}":
            return 407
        return self._status


async def _read(reader: asyncio.StreamReader) -> ProxyRequest:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return ProxyRequest(method, target, headers)


def _forwarded_request(request: ProxyRequest, address: str) -> bytes:
    """The request as the host gets it, and the only one on its connection."""
    path = request.target.removeprefix(f"http://{address}")
    headers = {name: value for name, value in request.headers.items() if name[:6] != "proxy-"}
    lines = [f"{name}: {value}" for name, value in {**headers, "connection": "close"}.items()]
    return "\r\n".join([f"{request.method} {path} HTTP/1.1", *lines, "", ""]).encode()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    await close_writer(writer)
