"""Share service: links that show a chain, up to a response, to whoever has them.

What a link shows is read from the store each time, so that erased words are gone from it at once.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

from antiphon.core.ids import to_response_id
from antiphon.core.share_secrets import hash_share_secret, new_share_id, new_share_secret
from antiphon.core.turns import Response
from antiphon.errors import HistoryChangedError, NotFoundError
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import Window
from antiphon.turn.transfer_protocols import ShareRecord, ShareStore
from antiphon.turn.turn_reader import response_not_found

#: How many turns are read at once.
_WINDOW: Final = 20


class ShareService:
    """Every method but ``find`` takes the tenant; what belongs to another does not exist."""

    def __init__(self, service: TurnService, store: ShareStore) -> None:
        self._service = service
        self._store = store

    async def create(
        self, tenant: str, response_id: str, expires_in: float | None = None
    ) -> tuple[ShareRecord, str]:
        """A new link to a chain that ends with a response, and its secret, which is shown once.

        ``expires_in`` is in seconds, None: until it is revoked. Raises ``NotFoundError``.
        """
        response_id = to_response_id(response_id)
        if await self._service.reader.head(tenant, response_id) is None:
            raise response_not_found(response_id)
        now, secret = time.time(), new_share_secret()
        expires_at = None if expires_in is None else now + expires_in
        share = ShareRecord(new_share_id(), tenant, response_id, now, expires_at)
        await self._store.add(share, _require_hash(secret))
        return share, secret

    async def list_shares(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ShareRecord]:
        """A tenant's links. Raises ``InvalidRequestError`` where there is none ``after``."""
        return await self._store.list_shares(tenant, limit, after=after, newest_first=newest_first)

    async def revoke(self, tenant: str, share_id: str) -> None:
        """A link shows nothing any more. Raises ``NotFoundError``."""
        if not await self._store.revoke(tenant, share_id):
            raise NotFoundError(f"No share found with id '{share_id}'.", code="share_not_found")

    async def find(self, secret: str) -> ShareRecord:
        """The share of a link. Raises ``NotFoundError``, the same for all that is missing."""
        digest = hash_share_secret(secret)
        share = await self._store.find(digest) if digest is not None else None
        if (
            share is None
            or await self._service.reader.head(share.tenant, share.response_id) is None
        ):
            raise NotFoundError("There is nothing here.", code="share_not_found")
        return share

    def turns(self, share: ShareRecord) -> AsyncIterator[Sequence[Response]]:
        """What a link shows, oldest turn first, some turns at a time."""
        return chain_windows(self._service, share.tenant, share.response_id)


async def chain_windows(
    service: TurnService, tenant: str, response_id: str
) -> AsyncIterator[Sequence[Response]]:
    """A chain, oldest turn first, read a few turns at a time.

    Raises ``NotFoundError``, ``HistoryChangedError`` where it is erased while it is read.
    """
    at: str | None = None
    while True:
        # The first turn of a window is the last of the one before.
        window = Window(_WINDOW + (at is not None), at, newest_first=False)
        turns = await service.reader.window(tenant, response_id, window)
        if at is not None and not turns:
            raise HistoryChangedError()
        new = turns[1:] if at is not None else turns
        if new:
            yield new
        if len(turns) < window.limit:
            return
        at = turns[-1].id


def _require_hash(secret: str) -> bytes:
    digest = hash_share_secret(secret)
    assert digest is not None, "a new secret has the form of one"
    return digest
