"""Chat service: lists, searches, updates and erases chats for every interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from antiphon.core.ids import to_response_id
from antiphon.core.turns import ResponseStatus, Usage
from antiphon.errors import InvalidRequestError, NotFoundError
from antiphon.turn.chat_protocols import (
    ALL_CHATS,
    ChainPart,
    ChainUsage,
    ChainWindow,
    ChatBranch,
    ChatFilter,
    ChatRecord,
    ChatStatus,
    ChatUpdate,
    StoreContents,
    TurnBranch,
    UsageSum,
)
from antiphon.turn.search_protocols import SearchHit
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import StoredTurn, Stores, unknown_cursor
from antiphon.turn.turn_reader import holds_back, may_be_queued, response_not_found

#: How many chats with the words are looked at for those that a filter takes, or that are behind
#: one: so many, and then each time twice as many more.
_SEARCH_PAGE: Final = 100
_MAX_SEARCH_PAGES: Final = 8
#: Turns of a chain in one read.
_USAGE_PAGE: Final = 50


class ChatMatch(msgspec.Struct, frozen=True):
    """A chat that a search found, and the best of its turns."""

    chat: ChatRecord
    hit: SearchHit


class ChatMatches(msgspec.Struct, frozen=True):
    """What a search found. ``is_complete`` False: more chats have the words than it looked at for
    those that the filter takes.
    """

    matches: list[ChatMatch]
    is_complete: bool


class ChatService:
    """Every method takes the tenant; what belongs to another does not exist."""

    def __init__(self, service: TurnService, stores: Stores) -> None:
        self._service = service
        self._store = stores.chats
        self._index = stores.search
        self._changes = stores.changes

    async def feed_cursor(self) -> str:
        """Where the feed is now: whoever reads something and then follows it from there misses
        nothing that changed since.
        """
        return await self._changes.cursor()

    async def list_chats(
        self,
        tenant: str,
        limit: int,
        *,
        after: str | None = None,
        newest_first: bool = True,
        chat_filter: ChatFilter = ALL_CHATS,
    ) -> list[ChatRecord]:
        """Chats, the one with the newest turn first. Raises ``InvalidRequestError``."""
        chats = await self._store.list_chats(
            tenant, limit, after=after, newest_first=newest_first, chat_filter=chat_filter
        )
        return [await self._with_status(tenant, chat) for chat in chats]

    async def _with_status(self, tenant: str, chat: ChatRecord) -> ChatRecord:
        """A chat at whose end turns are queued, with the status of what these wait for.

        To a store they are turns without an end, which run.
        """
        if chat.status != "running":
            return chat
        reader = self._service.reader
        turn = await reader.stored_turn(tenant, chat.head)
        if turn is None or not may_be_queued(turn):
            return chat
        try:
            turn = await reader.awaited(tenant, turn.response_id)
        except NotFoundError:  # Erased meanwhile.
            return chat
        if turn is None or turn.end is None or not holds_back(turn):
            return chat
        status: ChatStatus = "waiting" if turn.end.approvals else "idle"
        return msgspec.structs.replace(chat, status=status)

    async def search(
        self,
        tenant: str,
        query: str,
        limit: int,
        *,
        after: str | None = None,
        chat_filter: ChatFilter = ALL_CHATS,
    ) -> ChatMatches:
        """Chats in which something was said, each once, the best first.

        ``after``: from the one behind that chat on. Raises ``InvalidRequestError``.
        """
        last = await self._store.get(tenant, after) if after is not None else None
        if after is not None and last is None:
            raise unknown_cursor(after)
        seen: set[str] = set()
        found: list[ChatMatch] = []
        is_behind = last is None
        last_hit: str | None = None
        is_complete = False
        is_any = is_behind and chat_filter == ALL_CHATS
        for number in range(_MAX_SEARCH_PAGES):
            page = (limit if is_any else _SEARCH_PAGE) << number
            hits = await self._index.search_chats(tenant, query, page, after=last_hit)
            chats = await self._store.find(tenant, [hit.response_id for hit in hits])
            for hit, chat in zip(hits, chats, strict=True):
                if chat is None or chat.id in seen:
                    continue
                seen.add(chat.id)
                if is_behind and chat_filter.matches(chat):
                    found.append(ChatMatch(chat, hit))
                is_behind = is_behind or (last is not None and chat.id == last.id)
            is_complete = len(found) >= limit or len(hits) < page
            if is_complete:
                break
            last_hit = hits[-1].response_id
        if not is_behind and after is not None:
            raise unknown_cursor(after)
        return ChatMatches(found[:limit], is_complete)

    async def count_unsearched(self, tenant: str) -> int:
        """How many ended turns a search does not find yet."""
        return await self._index.count_unsearched(tenant)

    async def get(self, tenant: str, chat_id: str) -> ChatRecord:
        """A chat, by its own id, that of one of its responses or of its conversation.

        Raises ``NotFoundError``.
        """
        chat = _require_chat(await self._store.get(tenant, to_response_id(chat_id)), chat_id)
        return await self._with_status(tenant, chat)

    async def find(self, tenant: str, response_ids: Sequence[str]) -> list[ChatRecord | None]:
        """The chat of each response, None: it is not there any more."""
        return await self._store.find(tenant, response_ids)

    async def update(self, tenant: str, chat_id: str, update: ChatUpdate) -> ChatRecord:
        """Change its title, its metadata, whether it is pinned or permanent.

        Raises ``NotFoundError``, ``InvalidRequestError`` where nothing would change, and
        ``ConflictError`` where it would expire at once.
        """
        if update == ChatUpdate():
            raise InvalidRequestError(
                "Give a title, pinned, permanent or metadata.", code="missing_required_parameter"
            )
        changed = await self._store.update(tenant, to_response_id(chat_id), update)
        return _require_chat(changed, chat_id)

    async def window(
        self, tenant: str, response_id: str, window: ChainWindow, *, with_images: bool = True
    ) -> ChainPart:
        """A part of a response's chain, oldest turn first.

        ``with_images`` False: for responses with references to images. Raises ``NotFoundError``
        where that response is not there, ``InvalidRequestError`` where the window is not.
        """
        head = await self._service.reader.head(tenant, response_id)
        if head is None:
            raise response_not_found(response_id)
        part = await self._store.chain_part(head, window, with_images=with_images)
        turns = [one.turn for one in part.turns]
        marked = await self._service.reader.with_queued(tenant, turns)
        if marked is turns:
            return part
        shown = [
            msgspec.structs.replace(one, turn=turn)
            for one, turn in zip(part.turns, marked, strict=True)
        ]
        return msgspec.structs.replace(part, turns=shown)

    async def chain_usage(self, tenant: str, response_id: str) -> ChainUsage:
        """What a turn and its chain used, read by pages. Raises ``NotFoundError``."""
        part = await self.window(tenant, response_id, ChainWindow(_USAGE_PAGE), with_images=False)
        own = chain = _usage_of(part.turns[-1].turn)
        uncounted = int(_is_uncounted(part.turns[-1].turn))
        rest = part.turns[:-1]
        while True:
            for one in rest:
                chain += _usage_of(one.turn)
                uncounted += _is_uncounted(one.turn)
            if not part.has_more_before or not part.turns:
                return ChainUsage(own, chain, uncounted)
            window = ChainWindow(_USAGE_PAGE, before=part.turns[0].turn.response_id)
            part = await self.window(tenant, response_id, window, with_images=False)
            rest = part.turns

    async def contents(self, tenant: str) -> tuple[StoreContents, ChatRecord | None]:
        """How much is stored, and the chat that expires first."""
        oldest = await self._store.list_chats(
            tenant, 1, newest_first=False, chat_filter=ChatFilter(is_permanent=False)
        )
        expires = [one for one in oldest if one.expires_at is not None]
        return await self._store.contents(tenant), expires[0] if expires else None

    async def branches(self, tenant: str, chat_id: str) -> list[ChatBranch]:
        """All branches of a chat, oldest first. Raises ``NotFoundError``."""
        found = await self._store.branches(tenant, to_response_id(chat_id))
        if found is None:
            raise chat_not_found(chat_id)
        return [
            msgspec.structs.replace(
                one, status=await self._shown_status(tenant, one.leaf, one.status)
            )
            for one in found
        ]

    async def search_within(
        self, tenant: str, chat_id: str, query: str, limit: int, *, after: str | None = None
    ) -> list[tuple[SearchHit, int]]:
        """The turns of a chat in which something was said, and their positions, the best first.

        ``after``: from the one behind that response on. Raises ``NotFoundError``,
        ``InvalidRequestError``.
        """
        chat = await self.get(tenant, chat_id)
        hits = await self._index.search(tenant, query, limit, after=after, chat_id=chat.id)
        found: list[tuple[SearchHit, int]] = []
        for hit in hits:
            head = await self._service.reader.head(tenant, hit.response_id)
            if head is not None:
                found.append((hit, head.seq))
        return found

    async def siblings(self, tenant: str, response_id: str) -> list[TurnBranch]:
        """The turns that continue what a response continues, itself too, oldest first.

        Raises ``NotFoundError``.
        """
        found = await self._store.siblings(tenant, to_response_id(response_id))
        return await self._shown_branches(tenant, found, response_id)

    async def children(self, tenant: str, response_id: str) -> list[TurnBranch]:
        """The turns that continue a response, oldest first. Raises ``NotFoundError``."""
        found = await self._store.children(tenant, to_response_id(response_id))
        return await self._shown_branches(tenant, found, response_id)

    async def _shown_branches(
        self, tenant: str, found: list[TurnBranch] | None, response_id: str
    ) -> list[TurnBranch]:
        """Turns beside each other, with what of them is queued marked as that."""
        if found is None:
            raise response_not_found(response_id)
        return [
            msgspec.structs.replace(
                one, status=await self._shown_status(tenant, one.response_id, one.status)
            )
            for one in found
        ]

    async def _shown_status(
        self, tenant: str, response_id: str, status: ResponseStatus
    ) -> ResponseStatus:
        """A turn's status: a store takes one that is queued for one that runs."""
        if status == "in_progress" and await self._service.reader.is_queued(tenant, response_id):
            return "queued"
        return status

    async def delete(self, tenant: str, chat_id: str) -> str:
        """Erase a chat with all its turns and its conversation; its id.

        Turns that run in it are stopped first. Raises ``NotFoundError``.
        """
        chat = await self.get(tenant, chat_id)
        while True:
            names = await self._store.running_turns(tenant, chat.id)
            # One that waited for these may have begun by then.
            stopped = [await self._service.cancellation.stop(tenant, name) for name in names]
            if not any(stopped):
                break
        if not await self._store.delete(tenant, chat.id):
            raise chat_not_found(chat_id)
        await self._service.cancellation.tell_erased()
        return chat.id


def chat_not_found(chat_id: str) -> NotFoundError:
    """The error for an id that is nobody's, somebody else's, or no id at all."""
    return NotFoundError(f"No chat found with id '{chat_id}'.", code="chat_not_found")


def _require_chat(chat: ChatRecord | None, chat_id: str) -> ChatRecord:
    if chat is None:
        raise chat_not_found(chat_id)
    return chat


def _is_uncounted(turn: StoredTurn) -> bool:
    return turn.end is not None and turn.end.usage is None


def _usage_of(turn: StoredTurn) -> UsageSum:
    """What a turn used; one that runs, nothing yet."""
    end = turn.end
    usage = (end.usage if end else None) or Usage()
    return UsageSum(0, turn.header.model, 1, usage, end.cost if end else None)
