"""Chat protocols: chats, which are the families of turns, as a list and as a tree.

A chat is all turns that descend from one first turn, whatever interface they came by. Every
query takes a tenant; another tenant's chat is the same as a missing one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal, Protocol, TypeAlias

import msgspec

from antiphon.core.turns import Usage

#: ``waiting``: the newest turn ended with calls that a person has to agree to.
ChatStatus: TypeAlias = Literal["idle", "running", "waiting"]


class ChatRecord(msgspec.Struct, frozen=True):
    """A chat as a list shows it.

    ``updated_at`` is the time of its newest turn (``Head.timestamp``), or when it was last written
    to where it was imported from. ``head`` is the newest turn, or that of its conversation,
    ``turns`` the length of the chain that ends there. ``branches`` counts the threads that have
    turns. ``usage`` and ``cost`` are sums over all its turns, erased ones too; ``cost`` None: no
    turn had a price.
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
    metadata: Mapping[str, str] = {}
    usage: Usage = Usage()
    cost: float | None = None


class ChatFilter(msgspec.Struct, frozen=True):
    """Which chats a list shows. None: whatever it is; ``metadata``: all of these pairs."""

    status: ChatStatus | None = None
    is_pinned: bool | None = None
    model: str | None = None
    metadata: Mapping[str, str] = {}

    def matches(self, chat: ChatRecord) -> bool:
        return (
            self.status in (None, chat.status)
            and self.is_pinned in (None, chat.is_pinned)
            and self.model in (None, chat.model)
            and self.metadata.items() <= chat.metadata.items()
        )


ALL_CHATS: Final = ChatFilter()


class ChatUpdate(msgspec.Struct, frozen=True):
    """What changes of a chat: fields that are ``UNSET`` stay. ``title`` None: the first words."""

    title: str | msgspec.UnsetType | None = msgspec.UNSET
    is_pinned: bool | msgspec.UnsetType = msgspec.UNSET
    metadata: Mapping[str, str] | msgspec.UnsetType = msgspec.UNSET


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
        """Change the chat's own fields. None: there is none."""
        ...

    async def running_turns(self, tenant: str, chat_id: str) -> list[str]:
        """The ids of the chat's turns that run."""
        ...

    async def delete(self, tenant: str, chat_id: str) -> bool:
        """Erase all its turns, and its conversation. False: there was none."""
        ...
