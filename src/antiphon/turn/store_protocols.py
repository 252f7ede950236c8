"""What is kept besides turns: conversations, keys, receipts and the search index.

And what is done with turns besides taking them: listing them, and sweeping out old ones.

Ports, like ``turn.protocols``: each is small, and every store has all of them. A tenant's
things are nobody else's: what belongs to another is the same as none. Every failure is a
``StoreError``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from antiphon.core.turns import Claim, Conversation, End, Header, TurnStatus
from antiphon.errors import InvalidRequest
from antiphon.turn.protocols import StoredTurn


def unknown_cursor(after: str) -> InvalidRequest:
    """The error for a page of any list that begins behind what is not in that list.

    Not 404: that would say that what the list belongs to is not there.
    """
    return InvalidRequest(
        f"There is nothing with the id '{after}' in this list.",
        code="cursor_not_found",
        param="after",
    )


class ConversationStore(Protocol):
    """Conversations. A turn on one is begun by ``Store.begin`` (``NewTurn.conversation``).

    That sets ``busy`` to the new turn and ``head`` to its parent in the transaction that
    keeps the turn, and fails with ``ConversationLocked`` where head or busy are no longer
    what the turn's maker saw. So no end of a turn has to write here: whoever reads a
    conversation whose busy turn has ended well (completed or incomplete) finds it as head.
    """

    async def create(
        self, tenant: str, metadata: dict[str, str], claim: Claim | None = None
    ) -> Conversation:
        """A new one, empty. With ``claim`` its receipt is settled in the same transaction.

        ``Conflict`` where it cannot be.
        """
        ...

    async def get(self, tenant: str, conversation_id: str) -> Conversation | None:
        """With ``head`` moved on where the busy turn has ended."""
        ...

    async def describe(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> Conversation | None:
        """Set its metadata."""
        ...

    async def latest(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[Conversation]:
        """Conversations by when they were made, from the one behind ``after`` on.

        ``InvalidRequest``: there is no conversation ``after``.
        """
        ...

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        """Erase it and its turns, but for those that a branch outside it needs.

        A turn is its own if its header names it. False: there was none.
        """
        ...

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        """Put ``Erased`` in an item's place. False: there was none, or its turn runs."""
        ...


class Wanted(msgspec.Struct, frozen=True):
    """Which turns a list shows. None: whatever it is; ``metadata``: all of these pairs."""

    model: str | None = None
    status: TurnStatus | None = None
    metadata: Mapping[str, str] = {}

    def fits(self, header: Header, end: End | None) -> bool:
        return (
            self.model in (None, header.model)
            and self.status in (None, end.status if end else "in_progress")
            and self.metadata.items() <= header.options.metadata.items()
        )


#: A list without a choice.
ANYTHING: Final = Wanted()


class Archive(Protocol):
    """A tenant's turns, whatever chain they are of; and their expiry (``core.retention``)."""

    async def listing(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        wanted: Wanted = ANYTHING,
    ) -> list[StoredTurn]:
        """Turns by time, from the one behind ``after`` on.

        One that fits nothing ``wanted`` is passed by without being read whole.
        ``InvalidRequest``: there is no turn ``after``.
        """
        ...

    async def sweep(self) -> int:
        """Erase what has expired; how many turns. To be called now and then.

        Others go on reading and writing meanwhile. A turn that still runs stays until it
        has ended, and conversations go with their turns.
        """
        ...


class Key(msgspec.Struct, frozen=True):
    """An API key, without the key. ``id`` is shown; ``tenant`` is whose it is."""

    id: str
    tenant: str
    created_at: float
    name: str | None = None
    revoked_at: float | None = None


class KeyStore(Protocol):
    """API keys by their SHA-256: the keys themselves are nowhere."""

    async def add(self, key: Key, digest: bytes) -> None: ...

    async def find(self, digest: bytes) -> Key | None:
        """The key with that hash, unless it was revoked. One indexed read."""
        ...

    async def all(self) -> list[Key]:
        """Every key, oldest first, revoked ones too."""
        ...

    async def revoke(self, key_id: str) -> bool:
        """From now on it is nobody's key. False: there is none of that id."""
        ...

    async def any(self) -> bool:
        """Whether a key was ever made: from then on every request needs one."""
        ...


class Receipt(msgspec.Struct, frozen=True):
    """What an ``Idempotency-Key`` was used for.

    ``fingerprint`` is a hash of the request, ``outcome`` the id of what it made, None
    while that is not known.
    """

    fingerprint: bytes
    created_at: float
    outcome: str | None = None


class ReceiptStore(Protocol):
    """Receipts by tenant and idempotency key; they live for a day.

    One that is still without an outcome after a minute goes too: whoever wrote it died, or
    is told so when it comes to settle. What is made of a request settles its receipt in the
    transaction that keeps it (``NewTurn.claim``, ``ConversationStore.create``): it fails
    with ``Conflict`` where the receipt is another request's by then, or settled.
    """

    async def claim(self, tenant: str, key: str, fingerprint: bytes) -> Receipt | None:
        """Write a receipt. Another one that is there already is returned, and stays."""
        ...

    async def settle(self, tenant: str, key: str, outcome: str) -> None:
        """Say what came of it, where that was not kept with what came."""
        ...

    async def drop(self, tenant: str, key: str) -> None:
        """Nothing came of it: the key may be used again. One that was settled stays."""
        ...


class Hit(msgspec.Struct, frozen=True):
    """A turn in which something was found. ``excerpt`` marks the words by « and »."""

    response_id: str
    created_at: float
    excerpt: str
    conversation: str | None = None


class SearchIndex(Protocol):
    """Full text of what users and models said. Words that were erased are not in it."""

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[Hit]:
        """Turns that hold all words of ``query``, the best first; any text is a query.

        From the one behind the response ``after`` on, as all stand now: what came since and
        is better is passed by. How much a word counts for changes a little with every turn,
        so that two that are about as good may change places between two pages.
        ``InvalidRequest``: the query does not find ``after``.
        """
        ...


class StoreHealth(Protocol):
    """Whether a store works."""

    @property
    def refusals(self) -> int:
        """How many reads and writes have failed since it was opened."""
        ...

    async def check_writable(self) -> None:
        """Raise ``StoreError``, which says why, where nothing can be written now.

        Cheap enough for whoever asks, however often.
        """
        ...


class Ledgers(msgspec.Struct, frozen=True):
    """All of a store's ledgers; they close with it."""

    archive: Archive
    conversations: ConversationStore
    keys: KeyStore
    receipts: ReceiptStore
    search: SearchIndex
    health: StoreHealth
