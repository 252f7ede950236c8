"""Authentication: API keys, looked up in the store by their hash for each request.

Nothing is cached here: a revoked key stops working with the next request, whichever process
revoked it, and invalid keys use no memory. From the first key on every request needs one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import msgspec
from starlette.types import Scope

from antiphon.core.api_keys import hash_api_key
from antiphon.core.turns import DEFAULT_TENANT, TurnRequest
from antiphon.errors import AuthenticationError
from antiphon.turn.store_protocols import ApiKey, ApiKeyStore

#: Goes with every 401.
CHALLENGE = (b"www-authenticate", b'Bearer realm="antiphon"')
#: The scope's entries for a request's tenant, and for the id of its key.
_TENANT = "antiphon.tenant"
_KEY_ID = "antiphon.key_id"
#: Is there on a request without a key where others need one.
_NEEDS_KEY = "antiphon.needs_key"
#: Seconds after which a server without keys looks whether there are some by now.
_RECHECK_INTERVAL = 1.0


def tenant_of(scope: Scope) -> str:
    """A request's tenant; ``DEFAULT_TENANT`` where there are no keys."""
    tenant: str = scope[_TENANT]
    return tenant


def key_id_of(scope: Scope) -> str | None:
    """The id of a request's key; None: it came without one."""
    key_id: str | None = scope.get(_KEY_ID)
    return key_id


def set_caller(scope: Scope, tenant: str = DEFAULT_TENANT, key: ApiKey | None = None) -> None:
    """Set a request's tenant and key."""
    scope[_TENANT] = tenant
    if key is not None:
        scope[_KEY_ID] = key.id


def set_needs_key(scope: Scope) -> None:
    """Note on a request without a key that others would be refused without one."""
    scope[_NEEDS_KEY] = True


def needs_key(scope: Scope) -> bool:
    """Whether other requests than this one, which is public, need a key."""
    return _NEEDS_KEY in scope


def with_caller(request: TurnRequest, scope: Scope) -> TurnRequest:
    """A turn's request with the tenant and the key of the request that it came by."""
    tenant, key_id = tenant_of(scope), key_id_of(scope)
    if not tenant and key_id is None:
        return request
    return msgspec.structs.replace(request, tenant=tenant, key_id=key_id)


def credential_of(headers: Mapping[bytes, bytes]) -> bytes:
    """A request's credential: its bearer token, else ``x-api-key``; may be empty."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return token.strip()
    return headers.get(b"x-api-key", b"").strip()


class ApiKeyAuthenticator:
    """Authenticates requests by the API keys of a store."""

    def __init__(self, keys: ApiKeyStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._required = False
        self._recheck_at = -math.inf

    async def is_required(self, credential: bytes = b"") -> bool:
        """Whether a key is needed: since one was made, even if all were revoked again.

        A server that runs without keys learns of the first one within a second, and at
        once from who brings it. Raises ``StoreError``.
        """
        if not self._required:
            now = self._clock()
            if now >= self._recheck_at or hash_api_key(credential) is not None:
                self._required = await self._keys.has_keys()
                self._recheck_at = now + _RECHECK_INTERVAL
        return self._required

    async def key_names(self, tenant: str) -> dict[str, str | None]:
        """The names of a tenant's keys by their ids, revoked ones too. Raises ``StoreError``."""
        return {key.id: key.name for key in await self._keys.list_keys(tenant)}

    async def ping(self) -> None:
        """Check that the store answers. Raises ``StoreError``."""
        await self._keys.has_keys()

    async def authenticate(self, credential: bytes) -> ApiKey:
        """The key that was brought. Raises ``StoreError``, or ``AuthenticationError``.

        The latter says the same of a key that is missing, malformed, unknown or revoked.
        """
        digest = hash_api_key(credential)
        found = None if digest is None else await self._keys.find(digest)
        if found is None:
            raise AuthenticationError(
                "A valid API key is needed: send it as 'Authorization: Bearer ap_...'."
            )
        return found
