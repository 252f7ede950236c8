"""Conversations as people manage them: made, described, filled, listed, searched, erased."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from antiphon.core.ids import new_conversation_id, place_of_item
from antiphon.core.items import Item, Message
from antiphon.core.turns import Claim, Conversation, Response, TurnRequest
from antiphon.errors import Conflict, InvalidRequest, NotFound
from antiphon.turn.conversation_lock import missing_conversation
from antiphon.turn.protocols import Window
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ConversationStore, Hit, SearchIndex


class Conversations:
    """Every method takes the tenant; what belongs to another does not exist."""

    def __init__(self, service: TurnService, store: ConversationStore, index: SearchIndex) -> None:
        self._service = service
        self._store = store
        self._index = index

    async def create(
        self,
        tenant: str,
        items: Sequence[Item] = (),
        metadata: dict[str, str] | None = None,
        claim: Claim | None = None,
    ) -> Conversation:
        """A new conversation, begun with ``items``. Raises ``InvalidRequest`` for bad ones.

        ``claim``: the receipt is settled with it, by its id.
        """
        if not items:
            return await self._store.create(tenant, metadata or {}, claim)
        made = Conversation(new_conversation_id(), time.time(), metadata or {})
        with _checked(items):
            await self._service.found(_said(tenant, made.id, items, claim), made)
        return made

    async def get(self, tenant: str, conversation_id: str) -> Conversation:
        """Raises ``NotFound``."""
        return _found(await self._store.get(tenant, conversation_id), conversation_id)

    async def describe(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> Conversation:
        """Set its metadata. Raises ``NotFound``."""
        changed = await self._store.describe(tenant, conversation_id, metadata)
        return _found(changed, conversation_id)

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """Erase it with its turns, but for those that a branch outside it needs.

        Turns that run on it or wait for it are stopped first. Raises ``NotFound``.
        """
        while True:
            conversation = await self.get(tenant, conversation_id)
            running = self._service.running(conversation.busy or "")
            if running is None:
                break
            # One that waited for this may have begun by then.
            await running.cancel()
        if not await self._store.delete(tenant, conversation_id):
            raise missing_conversation(conversation_id)

    async def latest(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[Conversation]:
        """Conversations by when they were made, those behind ``after``."""
        return await self._store.latest(tenant, limit, after=after, newest_first=newest_first)

    async def search(
        self, tenant: str, query: str, limit: int, *, after: str | None = None
    ) -> Sequence[Hit]:
        """Turns that hold all words of ``query``, the best first, those behind ``after``.

        Raises ``InvalidRequest`` where the query does not find the response ``after``.
        """
        return await self._index.search(tenant, query, limit, after=after)

    async def turns(self, tenant: str, conversation_id: str) -> list[Response]:
        """All that was said in a conversation, oldest turn first. Raises ``NotFound``."""
        conversation = await self.get(tenant, conversation_id)
        if conversation.head is None:
            return []
        return await self._service.chain(tenant, conversation.head)

    async def window(self, tenant: str, conversation_id: str, window: Window) -> list[Response]:
        """A part of what was said in a conversation. Raises ``NotFound``."""
        conversation = await self.get(tenant, conversation_id)
        if conversation.head is None:
            return []
        return await self._service.window(tenant, conversation.head, window)

    async def turn_of(self, tenant: str, conversation_id: str, item_name: str) -> Response:
        """The turn of a conversation that an item by this id would be in.

        Raises ``NotFound`` where there is no such conversation or turn.
        """
        place = place_of_item(item_name)
        at = place[0] if place else ""
        for turn in await self.window(tenant, conversation_id, Window(1, at)):
            return turn
        raise missing_item(item_name)

    async def add(
        self,
        tenant: str,
        conversation_id: str,
        items: Sequence[Item],
        claim: Claim | None = None,
    ) -> Response:
        """Append items without asking a model, as a turn that only has an input.

        ``claim``: the receipt is settled with it, by the turn's id. Raises ``NotFound``,
        ``ConversationLocked`` while a turn runs, and ``InvalidRequest``.
        """
        with _checked(items):
            kept = await self._service.keep(_said(tenant, conversation_id, items, claim))
        return await self._service.response(tenant, kept)

    async def added(self, tenant: str, conversation_id: str, response_id: str) -> Response:
        """What was appended before. Raises ``NotFound`` where either is gone."""
        await self.get(tenant, conversation_id)
        return await self._service.response(tenant, response_id)

    async def erase_item(self, tenant: str, conversation_id: str, item_name: str) -> Conversation:
        """Erase one item; the others keep their ids. Raises ``NotFound``, ``Conflict``.

        A call of an MCP server goes with its output: they are one item to those who look.
        """
        place = place_of_item(item_name)
        turn = await self.turn_of(tenant, conversation_id, item_name)
        found = await self._service.item(tenant, item_name)
        if place is None or not found:
            raise missing_item(item_name)
        items = (*turn.input, *turn.output)
        for item in found:
            if not await self._store.erase_item(tenant, turn.id, items.index(item, place[1])):
                raise Conflict(
                    f"Item '{item_name}' cannot be erased while its turn runs.",
                    code="response_in_progress",
                )
        return await self.get(tenant, conversation_id)


@contextmanager
def _checked(items: Sequence[Item]) -> Iterator[None]:
    """Refuse items that say nothing; what is wrong with others is told of ``items``."""
    if all(isinstance(item, Message) and not item.content for item in items):
        raise InvalidRequest("The items say nothing.", code="empty_input", param="items")
    try:
        yield
    except InvalidRequest as error:
        if error.param == "input":
            # That is what a turn's field is called.
            error.param = "items"
        raise


def _said(
    tenant: str, conversation_id: str, items: Sequence[Item], claim: Claim | None
) -> TurnRequest:
    return TurnRequest(tuple(items), conversation=conversation_id, tenant=tenant, claim=claim)


def missing_item(item_name: str) -> NotFound:
    """The error for an item that is nobody's, somebody else's, or erased."""
    return NotFound(f"No item found with id '{item_name}'.", code="item_not_found")


def _found(conversation: Conversation | None, conversation_id: str) -> Conversation:
    if conversation is None:
        raise missing_conversation(conversation_id)
    return conversation
