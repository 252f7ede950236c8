"""Authorization: API key, else loopback only, then rate limits; one order for every protocol.

HTTP requests, turns on a WebSocket and gRPC calls all pass ``authorize``.

Loopback only: a browser will carry a page's request to a server on this machine, by a plain
POST from any site, or by a name that the site's owner points at 127.0.0.1 (DNS rebinding). So
while there are no keys, a request must name this machine as its host, and must not come from
another origin: neither from another site, nor from another program's page on this machine, unless
that page's origin is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import lru_cache

import msgspec

from antiphon.api.common.authentication import ApiKeyAuthenticator, credential_of
from antiphon.api.common.rate_limits import ConcurrencySlot, KeyUsage, RateLimiter
from antiphon.core.http_proxies import is_loopback
from antiphon.core.turns import DEFAULT_TENANT
from antiphon.core.urls import host_of
from antiphon.errors import ForbiddenError, InvalidRequestError
from antiphon.turn.store_protocols import ApiKey

#: Characters of a refused header that its error quotes.
_MAX_QUOTED = 80
#: Headers that have one value, on which more hangs than how an answer looks.
_SINGLE_HEADERS = frozenset(
    (
        *(b"authorization", b"x-api-key", b"idempotency-key", b"x-stainless-retry-count"),
        *(b"last-event-id", b"mcp-session-id"),
    )
)


class Principal(msgspec.Struct, frozen=True):
    """An authenticated caller: its tenant and key, and what the key has used.

    ``key`` None: no keys exist, or none is needed. ``usage`` None: there are no limits.
    ``needs_key``: it was let in without one since its path is public, and others are not.
    """

    tenant: str = DEFAULT_TENANT
    key: ApiKey | None = None
    usage: KeyUsage | None = None
    credential: bytes = b""
    needs_key: bool = False

    @property
    def key_id(self) -> str | None:
        return None if self.key is None else self.key.id

    def concurrency_slot(self) -> AbstractAsyncContextManager[None]:
        """A slot for one turn. Entering it raises ``RateLimitError``."""
        return nullcontext() if self.usage is None else ConcurrencySlot(self.usage)


class Authorizer:
    """The keys and the limits of one server. ``limiter`` None: there are no limits.

    ``origins`` are the web pages that are let in besides the server's own: while there are no
    keys, those of this machine only.
    """

    def __init__(
        self,
        authenticator: ApiKeyAuthenticator,
        limiter: RateLimiter | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self.authenticator = authenticator
        self.limiter = limiter
        self._origins = frozenset(origins)

    async def authorize(
        self,
        headers: Mapping[bytes, bytes],
        *,
        local_headers: Sequence[tuple[bytes, bytes]],
        add_header: Callable[[bytes, bytes], None],
        on_principal: Callable[[Principal], None] = lambda _: None,
        is_public: bool = False,
    ) -> Principal:
        """Admit a request, and count it.

        The order is fixed: an unknown key is refused before it can use anything up, and
        without keys a request from elsewhere is refused even where no key is needed
        (``is_public``). ``local_headers`` are those that must name this machine then.

        ``add_header`` gets the headers of the rate limit, also when it refuses the request.
        ``on_principal`` is called before that, so that a refusal is logged under its tenant.

        Raises ``AuthenticationError``, ``ForbiddenError``, ``RateLimitError``, ``StoreError``.
        """
        credential, key = credential_of(headers), None
        needs_key = await self.authenticator.is_required(credential)
        if not needs_key:
            require_local_host(local_headers, self._origins)
        if is_public:
            principal = Principal(credential=credential, needs_key=needs_key)
            on_principal(principal)
            return principal
        if needs_key:
            key = await self.authenticator.authenticate(credential)
        usage = None if self.limiter is None else self.limiter.usage_for(key)
        tenant = key.tenant if key else DEFAULT_TENANT
        principal = Principal(tenant, key, usage, credential)
        on_principal(principal)
        if usage is not None:
            await usage.count_request(add_header)
        return principal


def check_single_headers(
    given: Sequence[tuple[bytes, bytes]], headers: Mapping[bytes, bytes]
) -> None:
    """Raise ``InvalidRequestError`` where a header that has one value comes with two.

    Of two keys, a proxy before this server may have looked at the other one. ``headers`` are those
    that were ``given``, the last of each name.
    """
    if len(headers) == len(given):
        return
    for name, value in given:
        if name in _SINGLE_HEADERS and value.strip() != headers[name].strip():
            text = name.decode()
            raise InvalidRequestError(
                f"The header {text} is there twice, with different values.", param=text
            )


def require_local_host(
    headers: Sequence[tuple[bytes, bytes]], origins: Collection[str] = ()
) -> None:
    """Raise ``ForbiddenError`` unless a request is for this machine, and from a page of its own.

    Each Host names this machine, and each Origin is that Host's, or one of ``origins`` that names
    this machine ("*": all that do). One without an Origin comes from no page, or from its own.
    """
    by_name = dict(headers)
    if len(by_name) == len(headers) and b"origin" not in by_name:
        # Nearly all requests of programs: one Host at most, and no page.
        if (host := by_name.get(b"host")) is not None:
            _require_local(host, host, "Host")
        return
    hosts: set[bytes] = set()
    page_origins: list[bytes] = []
    for name, value in headers:
        if name == b"host":
            _require_local(value, value, "Host")
            hosts.add(value)
        elif name == b"origin":
            _require_local(value.partition(b"://")[2], value, "Origin")
            page_origins.append(value)
    for origin in page_origins:
        is_own = origin.partition(b"://")[2] in hosts
        if not is_own and "*" not in origins and origin.decode("latin-1") not in origins:
            raise ForbiddenError(
                f"A page of {origin.decode('latin-1')[:_MAX_QUOTED]!r} is not served: as long as"
                " there are no API keys only the server's own pages are, and those of this"
                " machine that are listed in cors_origins."
            )


def _require_local(netloc: bytes, value: bytes, header: str) -> None:
    if not _is_local(netloc):
        raise ForbiddenError(
            f"The {header} header {value.decode('latin-1')[:_MAX_QUOTED]!r} does not name this"
            " machine, and as long as there are no API keys nobody else is served. Call it"
            " localhost or 127.0.0.1, or make a key with `antiphon key create` and send that:"
            " with keys every host is served."
        )


@lru_cache(maxsize=64)
def _is_local(netloc: bytes) -> bool:
    host = host_of(netloc.decode("latin-1")).removesuffix(".")
    # No site has a name below localhost (RFC 6761): browsers take each for this machine.
    return is_loopback(host) or (host.endswith(".localhost") and "" not in host.split("."))
