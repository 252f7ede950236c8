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

from antiphon.core.turns import ConversationRecord, End, Header, IdempotencyReservation, TurnStatus
from antiphon.errors import InvalidRequestError
from antiphon.turn.protocols import StoredTurn


def unknown_cursor(after: str) -> InvalidRequestError:
    """The error for a page of any list that begins behind what is not in that list.

    Not 404: that would say that what the list belongs to is not there.
    """
    return InvalidRequestError(
        f"There is nothing with the id '{after}' in this list.",
        code="cursor_not_found",
        param="after",
    )


class ConversationStore(Protocol):
    """Conversations. A turn on one is begun by ``Store.begin`` (``NewTurn.conversation``).

    That sets ``busy`` to the new turn and ``head`` to its parent in the transaction that
    keeps the turn, and fails with ``ConversationLockedError`` where head or busy are no longer
    what the turn's maker saw. So no end of a turn has to write here: whoever reads a
    conversation whose busy turn has ended well (completed or incomplete) finds it as head.
    """

    async def create(
        self,
        tenant: str,
        metadata: dict[str, str],
        reservation: IdempotencyReservation | None = None,
    ) -> ConversationRecord:
        """A new one, empty. With ``claim`` its receipt is settled in the same transaction.

        ``ConflictError`` where it cannot be.
        """
        ...

    async def get(self, tenant: str, conversation_id: str) -> ConversationRecord | None:
        """With ``head`` moved on where the busy turn has ended."""
        ...

    async def update_metadata(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> ConversationRecord | None:
        """Set its metadata."""
        ...

    async def list_conversations(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[ConversationRecord]:
        """Conversations by when they were made, from the one behind ``after`` on.

        ``InvalidRequestError``: there is no conversation ``after``.
        """
        ...

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        """Erase it and its turns, but for those that a branch outside it needs.

        A turn is its own if its header names it. False: there was none.
        """
        ...

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        """Put ``ErasedItem`` in an item's place. False: there was none, or its turn runs."""
        ...


class ResponseFilter(msgspec.Struct, frozen=True):
    """Which turns a list shows. None: whatever it is; ``metadata``: all of these pairs."""

    model: str | None = None
    status: TurnStatus | None = None
    metadata: Mapping[str, str] = {}

    def matches(self, header: Header, end: End | None) -> bool:
        return (
            self.model in (None, header.model)
            and self.status in (None, end.status if end else "in_progress")
            and self.metadata.items() <= header.options.metadata.items()
        )


#: A list without a choice.
NO_FILTER: Final = ResponseFilter()


class ResponseIndex(Protocol):
    """A tenant's turns, whatever chain they are of; and their expiry (``core.retention``)."""

    async def list_responses(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        response_filter: ResponseFilter = NO_FILTER,
    ) -> list[StoredTurn]:
        """Turns by time, from the one behind ``after`` on.

        One that fits nothing ``wanted`` is passed by without being read whole.
        ``InvalidRequestError``: there is no turn ``after``.
        """
        ...

    async def delete_expired(self) -> int:
        """Erase what has expired; how many turns. To be called now and then.

        Others go on reading and writing meanwhile. A turn that still runs stays until it
        has ended, and conversations go with their turns.
        """
        ...


class ApiKey(msgspec.Struct, frozen=True):
    """An API key, without the key. ``id`` is shown; ``tenant`` is whose it is."""

    id: str
    tenant: str
    created_at: float
    name: str | None = None
    revoked_at: float | None = None


class ApiKeyStore(Protocol):
    """API keys by their SHA-256: the keys themselves are nowhere."""

    async def add(self, key: ApiKey, sha256: bytes) -> None: ...

    async def find(self, sha256: bytes) -> ApiKey | None:
        """The key with that hash, unless it was revoked. One indexed read."""
        ...

    async def list_keys(self) -> list[ApiKey]:
        """Every key, oldest first, revoked ones too."""
        ...

    async def revoke(self, key_id: str) -> bool:
        """From now on it is nobody's key. False: there is none of that id."""
        ...

    async def has_keys(self) -> bool:
        """Whether a key was ever made: from then on every request needs one."""
        ...


class IdempotencyRecord(msgspec.Struct, frozen=True):
    """What an ``Idempotency-Key`` was used for.

    ``fingerprint`` is a hash of the request, ``outcome`` the id of what it made, None
    while that is not known.
    """

    fingerprint: bytes
    created_at: float
    result_id: str | None = None


class IdempotencyStore(Protocol):
    """Receipts by tenant and idempotency key; they live for a day.

    One that is still without an outcome after a minute goes too: whoever wrote it died, or
    is told so when it comes to settle. What is made of a request settles its receipt in the
    transaction that keeps it (``NewTurn.claim``, ``ConversationStore.create``): it fails
    with ``ConflictError`` where the receipt is another request's by then, or settled.
    """

    async def reserve(self, tenant: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
        """Write a receipt. Another one that is there already is returned, and stays."""
        ...

    async def complete(self, tenant: str, key: str, result_id: str) -> None:
        """Say what came of it, where that was not kept with what came."""
        ...

    async def release(self, tenant: str, key: str) -> None:
        """Nothing came of it: the key may be used again. One that was settled stays."""
        ...


class SearchHit(msgspec.Struct, frozen=True):
    """A turn in which something was found. ``excerpt`` marks the words by « and »."""

    response_id: str
    created_at: float
    excerpt: str
    conversation: str | None = None


class SearchIndex(Protocol):
    """Full text of what users and models said. Words that were erased are not in it."""

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[SearchHit]:
        """Turns that hold all words of ``query``, the best first; any text is a query.

        From the one behind the response ``after`` on, as all stand now: what came since and
        is better is passed by. How much a word counts for changes a little with every turn,
        so that two that are about as good may change places between two pages.
        ``InvalidRequestError``: the query does not find ``after``.
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


class Stores(msgspec.Struct, frozen=True):
    """All of a store's ledgers; they close with it."""

    response_index: ResponseIndex
    conversations: ConversationStore
    api_keys: ApiKeyStore
    idempotency: IdempotencyStore
    search: SearchIndex
    health: StoreHealth
