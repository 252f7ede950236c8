"""Conversations in a SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from functools import partial

import msgspec

from antiphon.core.ids import conversation_key, new_conversation_id, response_key
from antiphon.core.items import ERASED, ERASED_SUMMARY
from antiphon.core.turns import Claim, Conversation
from antiphon.stores.sqlite.conversation_reader import (
    CONVERSATIONS,
    read_conversation,
    read_latest,
    resolved,
)
from antiphon.stores.sqlite.database import Ground
from antiphon.stores.sqlite.deletion import (
    Span,
    erase,
    family,
    forget_summaries,
    let_go,
    raise_epochs,
)
from antiphon.stores.sqlite.reader import has_expired, read_head
from antiphon.stores.sqlite.response_list import Page
from antiphon.stores.sqlite.rows import (
    INPUT,
    OUTPUT,
    TURN,
    USE,
    decode_use,
    last_of_turn,
    thread_of,
)
from antiphon.stores.sqlite.sql_files import SQL
from antiphon.stores.sqlite.write_transaction import Batch

_encoder = msgspec.json.Encoder()


class SqliteConversations:
    """A ``ConversationStore``."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground

    async def create(
        self, tenant: str, metadata: dict[str, str], claim: Claim | None = None
    ) -> Conversation:
        now = self._ground.expiry.clock()
        conversation = Conversation(new_conversation_id(), now, dict(metadata))
        await self._ground.put(Batch.found, tenant, conversation, claim)
        return conversation

    async def get(self, tenant: str, conversation_id: str) -> Conversation | None:
        cutoff = self._ground.expiry.cutoff(tenant)
        return await self._ground.inline(
            partial(
                read_conversation, tenant=tenant, conversation_id=conversation_id, cutoff=cutoff
            )
        )

    async def describe(
        self, tenant: str, conversation_id: str, metadata: dict[str, str]
    ) -> Conversation | None:
        cutoff = self._ground.expiry.cutoff(tenant)
        await self._ground.put(_describe, tenant, conversation_id, dict(metadata), cutoff)
        return await self.get(tenant, conversation_id)

    async def latest(
        self, tenant: str, limit: int, *, after: str | None = None, newest_first: bool = True
    ) -> list[Conversation]:
        page = Page(limit, after, newest_first)
        cutoff = self._ground.expiry.cutoff(tenant)
        read = partial(read_latest, tenant=tenant, page=page, cutoff=cutoff)
        return await self._ground.settled(read)

    async def delete(self, tenant: str, conversation_id: str) -> bool:
        cutoff = self._ground.expiry.cutoff(tenant)
        erased: bool = await self._ground.put(erase_conversation, tenant, conversation_id, cutoff)
        return erased

    async def erase_item(self, tenant: str, response_id: str, position: int) -> bool:
        cutoff = self._ground.expiry.cutoff(tenant)
        head = await self._ground.inline(
            partial(read_head, tenant=tenant, response_id=response_id, cutoff=cutoff)
        )
        if head is None or head.running:
            return False
        erased: bool = await self._ground.put(erase_item, tenant, response_id, position)
        return erased


def _describe(
    batch: Batch, tenant: str, conversation_id: str, metadata: dict[str, str], cutoff: float
) -> None:
    batch.flush()
    found, _ = resolved(batch.connection, tenant, conversation_id, cutoff)
    if found is not None:
        batch.connection.execute(
            CONVERSATIONS["describe"], (_encoder.encode(metadata), conversation_key(found.id))
        )
        # The old words.
        batch.erased = True


def erase_conversation(batch: Batch, tenant: str, conversation_id: str, cutoff: float) -> bool:
    """Erase a conversation and those of its turns that no living turn of others descends from."""
    batch.flush()
    connection = batch.connection
    found, _ = resolved(connection, tenant, conversation_id, cutoff)
    key = conversation_key(conversation_id)
    if found is None or key is None:
        return False
    places = [place for (place,) in connection.execute(CONVERSATIONS["members"], (key,))]
    needed = _needed(connection, places, key, cutoff)
    doomed = [place for place in places if place > needed.get(thread_of(place), -1)]
    let_go(connection, set().union(*[erase(connection, span) for span in _runs(doomed)]))
    raise_epochs(connection, doomed)
    connection.execute(CONVERSATIONS["drop"], (key,))
    batch.erased = True
    return True


def _needed(
    connection: sqlite3.Connection, places: list[int], key: bytes, cutoff: float
) -> dict[int, int]:
    """By thread: the last place that turns outside a conversation descend from.

    ``places`` are those of the conversation's turns, in order.
    """
    needed: dict[int, int] = {}
    seen: set[int] = set()
    for place in places:
        if thread_of(place) in seen:
            continue
        for span in family(connection, place):
            seen.add(thread_of(span[0]))
            others = connection.execute(CONVERSATIONS["others"], (*span, key)).fetchall()
            for other, stamp in others:
                if stamp > cutoff or not has_expired(connection, other, cutoff):
                    _need(connection, needed, other)
                    break
    return needed


def _need(connection: sqlite3.Connection, needed: dict[int, int], place: int | None) -> None:
    """A turn is needed, and so is all that it descends from."""
    while place is not None and needed.get(thread := thread_of(place), -1) < place:
        needed[thread] = place
        ((place,),) = connection.execute(CONVERSATIONS["parent"], (thread,)).fetchall()


def _runs(places: Iterable[int]) -> list[Span]:
    """Turns, as few spans as they are neighbours in."""
    spans: list[Span] = []
    for place in places:
        first = place
        if spans and last_of_turn(place - TURN) == spans[-1][1]:
            first = spans.pop()[0]
        spans.append((first, last_of_turn(place)))
    return spans


def erase_item(batch: Batch, tenant: str, response_id: str, position: int) -> bool:
    """Put ``Erased`` in an item's place, and let go of images that no other item of it shows."""
    batch.flush()
    connection = batch.connection
    found = connection.execute(SQL["place"], (response_key(response_id), tenant)).fetchall()
    if not found or connection.execute(SQL["owner"], found[0]).fetchall():
        return False
    place: int = found[0][0]
    rows = connection.execute(SQL["rows"], (place, last_of_turn(place))).fetchall()
    items = [(spot, body) for spot, kind, body in rows if kind in (INPUT, OUTPUT)]
    if not 0 <= position < len(items) or items[position][1] in (ERASED, ERASED_SUMMARY):
        return False
    connection.execute(SQL["replace_body"], (ERASED, items[position][0]))
    forget_summaries(connection, place)
    rest = [body for _, body in items[:position] + items[position + 1 :]]
    unused = {
        spot: use
        for spot, kind, use in rows
        if kind == USE and not _is_shown(connection, use, rest)
    }
    connection.executemany(SQL["drop_row"], [(spot,) for spot in unused])
    let_go(connection, unused.values())
    raise_epochs(connection, [place])
    batch.erased = True
    return True


def _is_shown(connection: sqlite3.Connection, use: bytes, items: list[bytes]) -> bool:
    rows = connection.execute(SQL["blob_hash"], (decode_use(use),)).fetchall()
    return any(rows[0][0].hex().encode() in item for item in items) if rows else False
