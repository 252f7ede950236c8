"""MCP over HTTP: an httpx transport that turns failed requests into protocol errors, with size
limits.

The SDK ends a whole session, and all calls in it, when a single request gets no response.
Here such a request gets one: a JSON-RPC error. The size of responses is limited, too. The
SDK has no hook for either.
"""

from __future__ import annotations

import json
import ssl
from functools import cache

import httpx2

from antiphon.core.http_proxies import Proxy, find_proxy
from antiphon.core.mcp_servers import McpServerConfig

#: Bytes of one answer, of one event of a stream, or of one line of a program: an image of
#: 20 MiB in base64 has room in it.
MAX_BYTES = 32 * 1024 * 1024
#: Seconds in which a connection has to be made. How long an answer may take, a call knows.
_CONNECT_TIMEOUT = 10.0

#: In an error's ``data``: the request did not arrive, nobody knows whether it did, or the
#: server has forgotten the session and did nothing.
NOT_SENT, CONNECTION_LOST, SESSION_EXPIRED = (
    "antiphon:unsent",
    "antiphon:lost",
    "antiphon:forgotten",
)
_ERROR_CODE = -32000


def http_client(server: McpServerConfig) -> httpx2.AsyncClient:
    """A client that sends the server's headers with each request.

    It goes by the proxy that is set, see ``find_proxy``. Raises ``ConfigError`` where that
    cannot be used.
    """
    assert server.url is not None
    headers = {name: value.reveal() for name, value in server.headers.items()}
    secure = server.url.reveal().lower().startswith("https:")
    proxy = find_proxy(server.url.reveal())
    inner = httpx2.AsyncHTTPTransport(
        verify=_ssl_context() if secure else False, proxy=_to_httpx_proxy(proxy) if proxy else None
    )
    return httpx2.AsyncClient(
        transport=_ErrorTransport(inner, proxy),
        # What is not compressed cannot grow.
        headers={**headers, "accept-encoding": "identity"},
        timeout=httpx2.Timeout(_CONNECT_TIMEOUT, read=None),
        # It would read .netrc, too, and have proxies for this machine.
        trust_env=False,
    )


def _to_httpx_proxy(proxy: Proxy) -> httpx2.Proxy:
    secure = _ssl_context() if proxy.scheme == "https" else None
    return httpx2.Proxy(proxy.url, auth=proxy.credentials, ssl_context=secure)


@cache
def _ssl_context() -> ssl.SSLContext:
    """Made once: reading the system's certificates takes longer than most calls."""
    return httpx2.create_ssl_context()


class _ErrorTransport(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport, proxy: Proxy | None) -> None:
        self._inner = inner
        self._proxy_note = f" by the proxy {proxy.address}" if proxy else ""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            response = await self._inner.handle_async_request(request)
            if (refusal := _check_response(request, response, self._proxy_note)) is not None:
                await response.aclose()
                return refusal
            return await _read_whole(response) if _is_json(response) else response
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            return _error_response(f"it could not be reached{self._proxy_note}", NOT_SENT)
        except httpx2.ProxyError as error:
            # It begins with the status; what else it says are the proxy's words.
            status = str(error)[:3]
            return _error_response(
                f"it could not be reached{self._proxy_note}: HTTP status {status}", NOT_SENT
            )
        except httpx2.TransportError as error:
            return _error_response(
                f"the connection broke off ({type(error).__name__})", CONNECTION_LOST
            )

    async def aclose(self) -> None:
        await self._inner.aclose()


def _check_response(
    request: httpx2.Request, response: httpx2.Response, proxy_note: str
) -> httpx2.Response | None:
    """What to hand on in place of an answer that says too little, or is not to be read."""
    status = response.status_code
    if status == 404 and "mcp-session-id" in request.headers:
        return _error_response("it has forgotten the session", SESSION_EXPIRED)
    if status in (401, 403, 407, 429) or (status >= 500 and not _is_json(response)):
        # In the clear it may be the proxy that answers.
        return _error_response(
            f"it answered with HTTP status {status}"
            + (proxy_note if request.url.scheme == "http" else "")
        )
    if response.headers.get("content-encoding", "identity") != "identity":
        return _error_response("it sent a compressed answer, which was not asked for")
    return None


async def _read_whole(response: httpx2.Response) -> httpx2.Response:
    """The same answer, read: the SDK would read without an end, and break with the connection."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > MAX_BYTES:
                return _error_response(f"its answer is larger than {MAX_BYTES >> 20} MiB")
    finally:
        await response.aclose()
    headers = [
        (name, value)
        for name, value in response.headers.items()
        if name not in ("content-length", "transfer-encoding")
    ]
    return httpx2.Response(response.status_code, headers=headers, content=bytes(body))


def _is_json(response: httpx2.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    return kind.lower().startswith("application/json")


def _error_response(reason: str, data: str | None = None) -> httpx2.Response:
    """An answer that the SDK hands to whoever waits for this one request."""
    error = {"code": _ERROR_CODE, "message": reason, "data": data}
    return httpx2.Response(
        502,
        headers={"content-type": "application/json"},
        content=json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(),
    )
