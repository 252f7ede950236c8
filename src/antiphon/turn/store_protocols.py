"""Store protocols: turns, conversations, API keys, idempotency records and retention.

Every store implements all of them. Every query takes a tenant; another tenant's data is the
same as missing data. Every failure is a ``StoreError``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from antiphon.core.chain_fingerprints import ChainFingerprint
from antiphon.core.images import Blob
from antiphon.core.turns import ConversationRecord, End, Header, IdempotencyReservation, TurnStatus
from antiphon.errors import InvalidRequestError
from antiphon.turn.transfer_protocols import ChatTransferStore, ImportRecordStore, ShareStore

if TYPE_CHECKING:
    from antiphon.turn.chat_protocols import ChatStore
    from antiphon.turn.feed_protocols import ChangeFeed
    from antiphon.turn.node_protocols import NodeRegistry
    from antiphon.turn.search_protocols import SearchIndex


def unknown_cursor(after: str, param: str = "after") -> InvalidRequestError:
    """The error for a page of any list that begins behind what is not in that list.

    Not 404: that would say that what the list belongs to is not there.
    """
    return InvalidRequestError(
        f"There is nothing with the id '{after}' in this list.",
        code="cursor_not_found",
        param=param,
    )


class Head(msgspec.Struct, frozen=True):
    """Where a response lies in the store.

    ``thread`` and ``seq`` locate it, ``tree`` the thread its whole family of
    branches began with, and ``epoch`` counts what was erased from that family: a
    cached history is good for as long as the epoch stays.
    ``is_running``: the turn has no end and its process is alive. ``timestamp`` is the
    time that its age counts from: that of the latest turn in its chain.
    """

    response_id: str
    tenant: str
    thread: int
    seq: int
    tree: int
    epoch: int
    is_running: bool
    timestamp: float = 0.0


class Continuations(msgspec.Struct, frozen=True):
    """A response, and the ids of those that somebody has seen continue it."""

    head: Head
    response_ids: frozenset[str]


class NewTurn(msgspec.Struct, frozen=True):
    """A turn about to run: ``input`` holds encoded items (``core.items``).

    ``blobs`` are the images that those refer to, by hash (``core.images``), kept once a tenant.
    ``parent`` is the response that it continues. ``sibling`` is one that it stands beside: without
    a parent, it belongs to that one's family. ``sources`` are others whose words it holds,
    each as it was before its words were read: ``begin`` fails with ``HistoryChangedError`` where
    one is gone, or something was erased from its family since.
    ``is_awaited`` False: nobody waits for the beginning alone: it may be kept with a quick end.
    ``conversation`` is the one it goes on, as its maker saw it: ``begin`` moves it on, and
    fails with ``ConversationLockedError`` where it has moved in the meantime.
    ``stored_at``: its age counts from then, and not from ``created_at``: it was imported.
    ``creates_conversation``: it is created with the turn. ``reservation``: its idempotency record
    is completed with the turn, by the id of the result, the new conversation or else the turn;
    ``ConflictError`` where it cannot be. ``seen`` are responses of its family, each with all that
    continued it when the turn was made: ``begin`` fails with ``HistoryBranchedError`` where others
    do by now. So of several who see the same, one begins.
    """

    response_id: str
    tenant: str
    created_at: float
    header: Header
    input: Sequence[bytes]
    parent: Head | None = None
    sibling: Head | None = None
    sources: Sequence[Head] = ()
    is_awaited: bool = True
    blobs: Sequence[Blob] = ()
    conversation: ConversationRecord | None = None
    creates_conversation: bool = False
    reservation: IdempotencyReservation | None = None
    seen: Sequence[Continuations] = ()
    stored_at: float | None = None

    @property
    def result_id(self) -> str:
        """The id of what a request that led to this turn has made."""
        if self.creates_conversation and self.conversation is not None:
            return self.conversation.id
        return self.response_id


class StoredTurn(msgspec.Struct, frozen=True):
    """A turn as it lies in the store. ``end`` None: it is still running.

    ``blobs`` holds the bytes of the images that the turn refers to, by hash. ``expires_at``
    is None where it is kept for ever, and in a ``chain``, which nobody asks for it. ``is_queued``
    is for readers to set (``turn.turn_reader``): a store does not know it.
    """

    response_id: str
    created_at: float
    header: Header
    input: tuple[bytes, ...]
    output: tuple[bytes, ...]
    end: End | None
    previous_response_id: str | None = None
    blobs: Mapping[str, bytes] = {}
    expires_at: float | None = None
    is_queued: bool = False


class HistoryEnd(msgspec.Struct, frozen=True):
    """What a history needs of a turn's ``End``."""

    status: TurnStatus
    tokens: int | None = None


class HistoryTurn(msgspec.Struct, frozen=True):
    """What a later turn's context is made of: a ``StoredTurn`` without what it was asked with."""

    response_id: str
    input: tuple[bytes, ...]
    output: tuple[bytes, ...]
    end: HistoryEnd | None
    previous_response_id: str | None = None
    blobs: Mapping[str, bytes] = {}


class Window(msgspec.Struct, frozen=True):
    """A part of a chain: at most ``limit`` turns, in one direction.

    It begins with the response ``at``, None: with the chain's end, or its beginning where
    ``newest_first`` is False.
    """

    limit: int
    at: str | None = None
    newest_first: bool = True


class Store(Protocol):
    """Keeps turns. Appends only; what it has confirmed survives a power cut.

    ``begin`` and ``write`` take effect in the order they are called, and return at
    once with a future that is done when the data is on disk, or fails with
    ``StoreError``: waiting is the caller's choice. A response of another tenant is
    the same as none, and so is one that has expired (``core.retention``): it and all its
    descendants are too old. Every other failure is a ``StoreError`` too.
    """

    def begin(self, turn: NewTurn) -> asyncio.Future[None]:
        """Keep a turn's request and input. Continues the parent's thread, or branches off it.

        Fails with ``HistoryChangedError`` where something was erased from what the turn was made
        of (``NewTurn.parent``), and on a conversation with ``ConversationLockedError`` or
        ``NotFoundError``, too: nothing is kept of it then.
        """
        ...

    def write(
        self, response_id: str, items: Sequence[bytes], end: End | None = None, inline: bool = False
    ) -> asyncio.Future[None]:
        """Append output items to a turn that this store began, and end it if ``end`` is given.

        The first end counts: whatever comes after it is dropped. Fails with
        ``TurnTakenOverError`` where another process runs the turn by now. ``inline``: nothing else
        is written with it, so that it may be on disk when this returns.
        """
        ...

    async def head(self, tenant: str, response_id: str) -> Head | None:
        """Where a response lies: one indexed read, at any length of the chain."""
        ...

    async def head_with_turns(
        self, tenant: str, response_id: str
    ) -> tuple[Head | None, Iterable[HistoryTurn]]:
        """The same with its chain's newest turns, newest first: those that this read gives too."""
        ...

    async def turn(self, tenant: str, response_id: str) -> StoredTurn | None:
        """One turn, whole."""
        ...

    async def chain(self, head: Head) -> list[StoredTurn]:
        """A response and its ancestors, oldest first, without those that were deleted."""
        ...

    async def history(self, head: Head) -> list[HistoryTurn]:
        """The same turns, as far as a context is made of them.

        No turns where something was erased from the family since ``head`` was read.
        """
        ...

    async def window(self, head: Head, window: Window) -> list[StoredTurn]:
        """A part of what ``chain`` gives, read without the rest.

        Nothing where ``Window.at`` is no turn of the chain, or was deleted.
        """
        ...

    async def delete(self, tenant: str, response_id: str, *, cascade: bool = False) -> bool:
        """Erase a turn (with ``cascade``, its descendants too). False: there was none."""
        ...

    async def close(self) -> None:
        """Write what was promised, then let go of everything. Safe to call twice."""
        ...


class ConversationStore(Protocol):
    """Conversations. A turn on one is begun by ``Store.begin`` (``NewTurn.conversation``).

    That sets ``active_response_id`` to the new turn and ``head`` to its parent in the transaction
    that keeps the turn, and fails with ``ConversationLockedError`` where either is no longer what
    the planner of the turn saw. So no end of a turn has to write here: whoever reads a conversation
    whose active turn has ended well (completed or incomplete) finds it as head.
    """

    async def create(
        self,
        tenant: str,
        metadata: dict[str, str],
        reservation: IdempotencyReservation | None = None,
    ) -> ConversationRecord:
        """A new one, empty. With ``reservation`` its record is completed in the same transaction.

        ``ConflictError`` where it cannot be.
        """
        ...

    async def get(self, tenant: str, conversation_id: str) -> ConversationRecord | None:
        """With ``head`` moved on where the active turn has ended."""
        ...

    async def update_metadata(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> ConversationRecord | None:
        """Set its metadata."""
        ...

    async def move_head(self, tenant: str, seen: ConversationRecord, response_id: str) -> bool:
        """Make another turn of its chat its head: the next turn on it continues that one.

        Raises ``ConversationLockedError`` where it is no longer as ``seen`` or a turn runs on it,
        and ``NotFoundError`` where it is gone. False: there is no such turn.
        """
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
    #: Only answered chat completions.
    chat_completions: bool = False

    def matches(self, header: Header, end: End | None) -> bool:
        if self.chat_completions and not (header.chat_completion and is_answered(end)):
            return False
        return (
            self.model in (None, header.model)
            and self.status in (None, end.status if end else "in_progress")
            and self.metadata.items() <= header.options.metadata.items()
        )


def is_answered(end: End | None) -> bool:
    """Whether a turn has ended with an answer, be it cut."""
    return end is not None and end.status in ("completed", "incomplete")


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

        One that ``response_filter`` does not match is skipped without being read whole.
        ``InvalidRequestError``: there is no turn ``after``.
        """
        ...

    def add_fingerprint(
        self, response_id: str, fingerprint: ChainFingerprint
    ) -> asyncio.Future[None]:
        """Have a turn that has ended found by the fingerprint of its chain.

        Takes effect after what the store was asked before, and does nothing where something was
        erased from the turn's family since the fingerprint's epoch.
        """
        ...

    async def find_chain(
        self, tenant: str, fingerprints: Sequence[bytes]
    ) -> tuple[int, str] | None:
        """The first fingerprint that a turn has, as a position, and the newest turn that has it.

        None: no turn has any of them. One that was erased has none, nor has any turn that
        followed it.
        """
        ...

    async def update_metadata(
        self, tenant: str, response_id: str, metadata: dict[str, str]
    ) -> bool:
        """Set a turn's metadata. False: there is no such turn."""
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

    async def list_keys(self, tenant: str | None = None) -> list[ApiKey]:
        """The keys of a tenant, None: all keys; oldest first, revoked ones too."""
        ...

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key. False: there is none of that id."""
        ...

    async def has_keys(self) -> bool:
        """Whether a key was ever made: from then on every request needs one."""
        ...


class IdempotencyRecord(msgspec.Struct, frozen=True):
    """What an ``Idempotency-Key`` was used for.

    ``fingerprint`` is a hash of the request, ``result_id`` what it created, None: not known yet.
    """

    fingerprint: bytes
    created_at: float
    result_id: str | None = None


class IdempotencyStore(Protocol):
    """Idempotency records by tenant and ``Idempotency-Key``; they expire after a day.

    One without a result expires after a minute, or when the process that reserved it dies: others
    may reserve the key then. The transaction that stores a result completes its record
    (``NewTurn.reservation``, ``ConversationStore.create``). It fails with ``ConflictError`` where
    another request holds the key by then, or the record is complete.
    """

    async def reserve(self, tenant: str, key: str, fingerprint: bytes) -> IdempotencyRecord | None:
        """Reserve a key. The record that already exists is returned, and stays."""
        ...

    async def complete(self, tenant: str, key: str, result_id: str) -> None:
        """Set the result of a record, where that was not stored with the result itself."""
        ...

    async def release(self, tenant: str, key: str) -> None:
        """Delete this process's record without a result: the key may be used again."""
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
    """The other stores of a store: they share its file and close with it."""

    response_index: ResponseIndex
    conversations: ConversationStore
    api_keys: ApiKeyStore
    idempotency: IdempotencyStore
    search: SearchIndex
    health: StoreHealth
    chats: ChatStore
    changes: ChangeFeed
    shares: ShareStore
    chat_transfer: ChatTransferStore
    imports: ImportRecordStore
    nodes: NodeRegistry
