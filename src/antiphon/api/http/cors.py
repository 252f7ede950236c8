"""CORS: which web pages of other origins may call the server and read its responses.

A page needs an API key like every client; no response allows credentials, so cookies are
never sent. Starlette's middleware would wrap every response, also without an Origin header,
and answer preflights of pages that are not allowed before authorization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.types import Send

from antiphon.api.http.asgi_responses import Headers

_ALLOWED_METHODS = b"GET, HEAD, POST, DELETE, OPTIONS"
_EXPOSED_HEADERS = (
    b"x-request-id, retry-after, x-should-retry, x-ratelimit-limit-requests,"
    b" x-ratelimit-remaining-requests, x-ratelimit-reset-requests"
)
#: Seconds for which a browser need not ask again.
_MAX_AGE = b"7200"


class CorsPolicy:
    """Origins as browsers write them, or "*" for all."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._allow_all = "*" in origins
        self._origins = {origin.encode() for origin in origins}

    def headers(self, origin: bytes | None) -> Headers:
        """What every answer to a request from ``origin`` carries."""
        # A cache must not give one page what was allowed another.
        vary = [] if self._allow_all else [(b"vary", b"origin")]
        if not self._is_allowed(origin):
            return vary
        allowed = b"*" if self._allow_all or origin is None else origin
        return [
            *vary,
            (b"access-control-allow-origin", allowed),
            (b"access-control-expose-headers", _EXPOSED_HEADERS),
        ]

    def is_preflight(self, method: str, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a browser asks if an allowed page may send what it is about to."""
        return (
            method == "OPTIONS"
            and b"access-control-request-method" in headers
            and self._is_allowed(headers.get(b"origin"))
        )

    def _is_allowed(self, origin: bytes | None) -> bool:
        return origin is not None and (self._allow_all or origin in self._origins)


async def send_preflight_response(send: Send, headers: Mapping[bytes, bytes]) -> None:
    """Yes. Any header may be sent: clients name their versions in a dozen of them."""
    allowed = [
        (b"access-control-allow-methods", _ALLOWED_METHODS),
        (b"access-control-max-age", _MAX_AGE),
    ]
    if wanted := headers.get(b"access-control-request-headers"):
        allowed.append((b"access-control-allow-headers", wanted))
    await send({"type": "http.response.start", "status": 204, "headers": allowed})
    await send({"type": "http.response.body", "body": b""})
