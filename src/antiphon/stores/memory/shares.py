"""In-memory shared links, by the SHA-256 of their secrets."""

from __future__ import annotations

from antiphon.core.retention import Clock
from antiphon.turn.store_protocols import unknown_cursor
from antiphon.turn.transfer_protocols import ShareRecord


class MemoryShareStore:
    """A ``ShareStore`` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shares: dict[bytes, ShareRecord] = {}

    async def add(self, share: ShareRecord, sha256: bytes) -> None:
        self._shares = self._valid()
        self._shares[sha256] = share

    async def find(self, sha256: bytes) -> ShareRecord | None:
        return self._valid().get(sha256)

    async def list_shares(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ShareRecord]:
        shares = [share for share in self._valid().values() if share.tenant == tenant]
        shares.sort(key=lambda share: (share.created_at, share.id), reverse=newest_first)
        if after is not None:
            ids = [share.id for share in shares]
            if after not in ids:
                raise unknown_cursor(after)
            shares = shares[ids.index(after) + 1 :]
        return shares[: max(0, limit)]

    async def revoke(self, tenant: str, share_id: str) -> bool:
        for sha256, share in self._valid().items():
            if (share.tenant, share.id) == (tenant, share_id):
                del self._shares[sha256]
                return True
        return False

    def _valid(self) -> dict[bytes, ShareRecord]:
        """Those that have not expired."""
        now = self._clock()
        return {
            sha256: share
            for sha256, share in self._shares.items()
            if share.expires_at is None or share.expires_at > now
        }
