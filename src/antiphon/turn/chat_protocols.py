"""Chat protocols: chats, which are the families of turns, as a list and as a tree.

A chat is all turns that descend from one first turn, whatever interface they came by. Every
query takes a tenant; another tenant's chat is the same as a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from antiphon.core.turns import ResponseStatus, Usage
from antiphon.turn.store_protocols import Head, StoredTurn

#: ``waiting``: the newest turn ended with calls that a person has to agree to.
ChatStatus: TypeAlias = Literal["idle", "running", "waiting"]


class ChatRecord(msgspec.Struct, frozen=True):
    """A chat as a list shows it.

    ``updated_at`` is the time of its newest turn (``Head.timestamp``), or when it was last written
    to where it was imported from. ``head`` is the newest turn, or that of its conversation,
    ``turns`` the length of the chain that ends there. ``branches`` counts the threads that have
    turns. ``is_permanent``: its turns do not expire. ``usage`` and ``cost`` are sums over all its
    turns, erased ones too; ``cost`` None: no turn had a price.
    """

    id: str
    created_at: float
    updated_at: float
    head: str
    turns: int
    branches: int
    model: str
    status: ChatStatus
    title: str | None = None
    conversation: str | None = None
    expires_at: float | None = None
    is_pinned: bool = False
    is_permanent: bool = False
    metadata: Mapping[str, str] = {}
    usage: Usage = Usage()
    cost: float | None = None


class ChatFilter(msgspec.Struct, frozen=True):
    """Which chats a list shows. None: whatever it is; ``metadata``: all of these pairs."""

    status: ChatStatus | None = None
    is_pinned: bool | None = None
    is_permanent: bool | None = None
    model: str | None = None
    metadata: Mapping[str, str] = {}

    def matches(self, chat: ChatRecord) -> bool:
        return (
            self.status in (None, chat.status)
            and self.is_pinned in (None, chat.is_pinned)
            and self.is_permanent in (None, chat.is_permanent)
            and self.model in (None, chat.model)
            and self.metadata.items() <= chat.metadata.items()
        )


ALL_CHATS: Final = ChatFilter()


class ChatUpdate(msgspec.Struct, frozen=True):
    """What changes of a chat: fields that are ``UNSET`` stay. ``title`` None: the first words."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    is_pinned: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET
    is_permanent: bool | msgspec.UnsetType = msgspec.UNSET


class ChainWindow(msgspec.Struct, frozen=True):
    """A part of a chain: its last ``limit`` turns, or so many before, after or around one.

    Of ``before``, ``after``, ``around`` and ``position`` at most one is given. ``position`` is that
    of the turn to center on, from 0.
    """

    limit: int
    before: str | None = None
    after: str | None = None
    around: str | None = None
    position: int | None = None

    @property
    def anchor(self) -> str | None:
        """The response that the window is relative to."""
        return self.before or self.after or self.around

    @property
    def anchor_name(self) -> str:
        """Which field has it."""
        return "before" if self.before else "after" if self.after else "around"


class ChainTurn(msgspec.Struct, frozen=True):
    """A turn with its place in its chain and among the turns beside it.

    ``sibling_index`` counts from 0, the oldest first; ``siblings`` and ``children`` are numbers of
    turns that are not erased.
    """

    turn: StoredTurn
    position: int
    sibling_index: int
    siblings: int
    children: int


class ChainPart(msgspec.Struct, frozen=True):
    """The turns of a ``ChainWindow``, oldest first; ``total`` is the length of the chain.

    Turns that were erased keep their positions, and count.
    """

    turns: list[ChainTurn]
    has_more_before: bool
    has_more_after: bool
    total: int


class TurnBranch(msgspec.Struct, frozen=True):
    """One of several turns that continue the same one.

    ``leaf`` is the newest turn among its descendants, or itself, and ``turns`` the length of the
    chain that ends there.
    """

    response_id: str
    created_at: float
    model: str
    status: ResponseStatus
    opening: str | None
    leaf: str
    turns: int


class ChatBranch(msgspec.Struct, frozen=True):
    """A branch of a chat, which ends at its last turn that is not erased.

    ``leaf`` is that turn, ``forks_from`` the one that the branch begins behind, None: it begins
    with the chat. ``opening`` are the first words of its own first turn, which was created at
    ``created_at``; ``turns`` is the length of the chain that ends at the leaf.
    """

    leaf: str
    forks_from: str | None
    opening: str | None
    turns: int
    created_at: float
    updated_at: float
    status: ResponseStatus


class TurnOrigin(msgspec.Struct, frozen=True):
    """What a turn continues: its nearest ancestor that is not erased, None: it begins a chat."""

    head: Head
    parent: str | None


class UsageSum(msgspec.Struct, frozen=True):
    """What the turns of one day (of UTC, counted since 1970), model and key used, erased ones too.

    ``key_id`` is of the API key that they were requested with, None: they came without a key.
    Imported turns do not count.
    """

    day: int
    model: str
    turns: int
    usage: Usage
    cost: float | None = None
    key_id: str | None = None

    def __add__(self, other: UsageSum) -> UsageSum:
        costs = [cost for cost in (self.cost, other.cost) if cost is not None]
        return UsageSum(
            self.day,
            self.model,
            self.turns + other.turns,
            self.usage + other.usage,
            sum(costs) if costs else None,
            self.key_id,
        )


class ChainUsage(msgspec.Struct, frozen=True):
    """What a turn used, and what all turns of its chain did.

    ``uncounted``: so many of these ended without saying what they took, as one that was stopped.
    """

    turn: UsageSum
    chain: UsageSum
    uncounted: int = 0


#: What ``StoreContents`` are counted up to: that many, or more.
MAX_COUNTED: Final = 100_000


class StoreContents(msgspec.Struct, frozen=True):
    """How much a store holds of a tenant, each counted up to ``MAX_COUNTED``.

    ``size`` are the bytes of all tenants, None: unknown.
    """

    chats: int
    conversations: int
    turns: int
    size: int | None = None


class ChatStore(Protocol):
    """Chats. A chat comes with its first turn, and goes when its last one is erased or expires.

    ``chat_id`` may also be the id of any of its responses, or of its conversation.
    """

    async def list_chats(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        chat_filter: ChatFilter = ALL_CHATS,
    ) -> list[ChatRecord]:
        """Chats by ``updated_at``, from the one behind the chat ``after`` on.

        As much work as there are chats in it, however many turns they have.
        ``InvalidRequestError``: there is no chat ``after``.
        """
        ...

    async def get(self, tenant: str, chat_id: str) -> ChatRecord | None: ...

    async def find(self, tenant: str, response_ids: Sequence[str]) -> list[ChatRecord | None]:
        """The chat of each response."""
        ...

    async def update(self, tenant: str, chat_id: str, update: ChatUpdate) -> ChatRecord | None:
        """Change the chat's own fields. None: there is none.

        ``ConflictError``: it would not be permanent any more, and expire at once.
        """
        ...

    async def set_generated_title(self, head: Head, title: str) -> bool:
        """Give the chat of a turn a title that a model made of it.

        False: the chat has a title, or something was erased from it since ``head`` was read.
        """
        ...

    async def running_turns(self, tenant: str, chat_id: str) -> list[str]:
        """The ids of the chat's turns that run."""
        ...

    async def delete(self, tenant: str, chat_id: str) -> bool:
        """Erase all its turns, and its conversation. False: there was none."""
        ...

    async def branches(self, tenant: str, chat_id: str) -> list[ChatBranch] | None:
        """All branches of a chat, oldest first. None: there is no such chat."""
        ...

    async def usage_sums(self, tenant: str, first_day: int, last_day: int) -> list[UsageSum]:
        """What ended turns used, by day, model and key, oldest day first."""
        ...

    async def contents(self, tenant: str) -> StoreContents:
        """How much there is, counted in an index."""
        ...

    async def image(self, tenant: str, sha256: str) -> bytes | None:
        """The bytes of an image that some turn uses, by their hash."""
        ...

    async def waiting_turns(self, tenant: str) -> list[tuple[ChatRecord, StoredTurn]]:
        """The turns that wait for a person, newest first, without images."""
        ...

    async def chain_part(
        self, head: Head, window: ChainWindow, *, with_images: bool = True
    ) -> ChainPart:
        """A part of the chain that ends at ``head``, as much work as there are turns in it.

        ``with_images`` False: without the bytes of images (``StoredTurn.blobs``).
        ``InvalidRequestError``: what it is relative to is not in the chain.
        """
        ...

    async def siblings(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        """The turns that continue what a response continues, itself too, oldest first.

        None: there is no such response.
        """
        ...

    async def children(self, tenant: str, response_id: str) -> list[TurnBranch] | None:
        """The turns that continue a response, oldest first. None: there is no such response."""
        ...

    async def origin(self, tenant: str, response_id: str) -> TurnOrigin | None:
        """What a response continues. None: there is no such response."""
        ...
