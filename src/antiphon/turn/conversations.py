"""Conversation service: creates, updates, appends to, reads and deletes conversations."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from antiphon.core.ids import new_conversation_id, parse_item_id
from antiphon.core.items import Item, Message
from antiphon.core.turns import ConversationRecord, IdempotencyReservation, Response, TurnRequest
from antiphon.errors import ConflictError, InvalidRequestError, NotFoundError
from antiphon.turn.conversation_lock import conversation_locked, conversation_not_found
from antiphon.turn.search_protocols import SearchIndex
from antiphon.turn.service import TurnService
from antiphon.turn.store_protocols import ConversationStore, Window
from antiphon.turn.turn_reader import response_not_found


class ConversationService:
    """Every method takes the tenant; what belongs to another does not exist."""

    def __init__(self, service: TurnService, store: ConversationStore, index: SearchIndex) -> None:
        self._service = service
        self.store = store
        self.index = index

    async def create(
        self,
        tenant: str,
        items: Sequence[Item] = (),
        metadata: dict[str, str] | None = None,
        reservation: IdempotencyReservation | None = None,
        *,
        key_id: str | None = None,
    ) -> ConversationRecord:
        """A new conversation, begun with ``items``. Raises ``InvalidRequestError`` for bad ones.

        ``reservation``: its idempotency record is completed with it, by its id.
        """
        if not items:
            return await self.store.create(tenant, metadata or {}, reservation)
        made = ConversationRecord(new_conversation_id(), time.time(), metadata or {})
        with _validate_items(items):
            await self._service.create_conversation_with_turn(
                _append_request(tenant, made.id, items, reservation, key_id), made
            )
        return made

    async def get(self, tenant: str, conversation_id: str) -> ConversationRecord:
        """Raises ``NotFoundError``."""
        return _require_conversation(await self.store.get(tenant, conversation_id), conversation_id)

    async def update_metadata(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> ConversationRecord:
        """Set its metadata. Raises ``NotFoundError``."""
        changed = await self.store.update_metadata(tenant, conversation_id, metadata)
        return _require_conversation(changed, conversation_id)

    async def move_head(self, tenant: str, conversation_id: str, response_id: str) -> None:
        """Have its next turn continue another turn of its chat.

        Raises ``NotFoundError``, ``InvalidRequestError`` for a turn of another chat,
        ``ConversationLockedError`` while a turn runs on it, and ``ConflictError`` while the turn
        itself runs.
        """
        conversation = await self.get(tenant, conversation_id)
        if conversation.active_response_id is not None:
            raise conversation_locked(conversation_id)
        target = await self._service.reader.head(tenant, response_id)
        if target is None:
            raise response_not_found(response_id, param="head")
        head = conversation.head and await self._service.reader.head(tenant, conversation.head)
        if not head or head.tree != target.tree:
            raise InvalidRequestError(
                f"'{response_id}' is not a turn of this conversation's chat.", param="head"
            )
        if target.is_running:
            raise ConflictError(
                f"Response '{response_id}' is still running.", code="response_in_progress"
            )
        if not await self.store.move_head(tenant, conversation, response_id):
            raise response_not_found(response_id, param="head")

    async def delete(self, tenant: str, conversation_id: str) -> None:
        """Erase it with its turns, but for those that a branch outside it needs.

        Turns that run on it or wait for it are stopped first. Raises ``NotFoundError``.
        """
        while True:
            conversation = await self.get(tenant, conversation_id)
            active = conversation.active_response_id
            # One that waited for this may have begun by then.
            if active is None or not await self._service.cancellation.stop(tenant, active):
                break
        if not await self.store.delete(tenant, conversation_id):
            raise conversation_not_found(conversation_id)

    async def turns(self, tenant: str, conversation_id: str) -> list[Response]:
        """All that was said in a conversation, oldest turn first. Raises ``NotFoundError``."""
        conversation = await self.get(tenant, conversation_id)
        if conversation.head is None:
            return []
        return await self._service.reader.chain(tenant, conversation.head)

    async def window(self, tenant: str, conversation_id: str, window: Window) -> list[Response]:
        """A part of what was said in a conversation. Raises ``NotFoundError``."""
        conversation = await self.get(tenant, conversation_id)
        if conversation.head is None:
            return []
        return await self._service.reader.window(tenant, conversation.head, window)

    async def turn_of(self, tenant: str, conversation_id: str, item_name: str) -> Response:
        """The turn of a conversation that an item by this id would be in.

        Raises ``NotFoundError`` where there is no such conversation or turn.
        """
        parsed = parse_item_id(item_name)
        at = parsed[0] if parsed else ""
        for turn in await self.window(tenant, conversation_id, Window(1, at)):
            return turn
        raise item_not_found(item_name)

    async def add(
        self,
        tenant: str,
        conversation_id: str,
        items: Sequence[Item],
        reservation: IdempotencyReservation | None = None,
        *,
        key_id: str | None = None,
    ) -> Response:
        """Append items without asking a model, as a turn that only has an input.

        ``reservation``: its idempotency record is completed with it, by the turn's id. Raises
        ``NotFoundError``, ``ConversationLockedError`` while a turn runs, and
        ``InvalidRequestError``.
        """
        with _validate_items(items):
            response_id = await self._service.store_turn(
                _append_request(tenant, conversation_id, items, reservation, key_id)
            )
        return await self._service.reader.response(tenant, response_id)

    async def get_added_turn(self, tenant: str, conversation_id: str, response_id: str) -> Response:
        """What was appended before. Raises ``NotFoundError`` where either is gone."""
        await self.get(tenant, conversation_id)
        return await self._service.reader.response(tenant, response_id)

    async def erase_item(
        self, tenant: str, conversation_id: str, item_name: str
    ) -> ConversationRecord:
        """Erase one item; the others keep their ids. Raises ``NotFoundError``, ``ConflictError``.

        A call of an MCP server goes with its output: they are one item to those who look.
        """
        parsed = parse_item_id(item_name)
        turn = await self.turn_of(tenant, conversation_id, item_name)
        found = await self._service.reader.item(tenant, item_name)
        if parsed is None or not found:
            raise item_not_found(item_name)
        items = (*turn.input, *turn.output)
        for item in found:
            if not await self.store.erase_item(tenant, turn.id, items.index(item, parsed[1])):
                raise ConflictError(
                    f"Item '{item_name}' cannot be erased while its turn runs.",
                    code="response_in_progress",
                )
        await self._service.cancellation.tell_erased()
        return await self.get(tenant, conversation_id)


@contextmanager
def _validate_items(items: Sequence[Item]) -> Iterator[None]:
    """Refuse items that say nothing; what is wrong with others is told of ``items``."""
    if all(isinstance(item, Message) and not item.content for item in items):
        raise InvalidRequestError("The items say nothing.", code="empty_input", param="items")
    try:
        yield
    except InvalidRequestError as error:
        if error.param == "input":
            # That is what a turn's field is called.
            error.param = "items"
        raise


def _append_request(
    tenant: str,
    conversation_id: str,
    items: Sequence[Item],
    reservation: IdempotencyReservation | None,
    key_id: str | None,
) -> TurnRequest:
    return TurnRequest(
        tuple(items),
        conversation=conversation_id,
        tenant=tenant,
        reservation=reservation,
        key_id=key_id,
    )


def item_not_found(item_name: str) -> NotFoundError:
    """The error for an item that is nobody's, somebody else's, or erased."""
    return NotFoundError(f"No item found with id '{item_name}'.", code="item_not_found")


def _require_conversation(
    conversation: ConversationRecord | None, conversation_id: str
) -> ConversationRecord:
    if conversation is None:
        raise conversation_not_found(conversation_id)
    return conversation
