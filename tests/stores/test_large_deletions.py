"""Deletions of hundreds of turns: all of them go, whatever begins meanwhile."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from antiphon.errors import HistoryChangedError
from antiphon.turn.store_protocols import Head
from support.store_turns import (
    DONE,
    HEADER,
    STORES,
    StoreWithStores,
    assistant,
    complete_turn,
    complete_turns,
    head_of,
    ids,
    ids_of,
    new_turn,
    opener,
)

#: More than a store erases at once.
_TURNS = 300


async def _grow_conversation(store: StoreWithStores) -> tuple[str, list[Head]]:
    """A conversation of many turns, and their heads."""
    conversations = store.stores.conversations
    made = await conversations.create("", {"secret": "metadata"})
    header = msgspec.structs.replace(HEADER, conversation=made.id)
    heads: list[Head] = []
    for number in range(_TURNS):
        record = await conversations.get("", made.id)
        turn = msgspec.structs.replace(
            new_turn(f"question {number}", parent=heads[-1] if heads else None, header=header),
            conversation=record,
        )
        await asyncio.gather(
            store.begin(turn), store.write(turn.response_id, [assistant("So.")], DONE)
        )
        heads.append(await head_of(store, turn.response_id))
    return made.id, heads


async def _continue_until(
    store: StoreWithStores, heads: list[Head], deletion: asyncio.Future[bool]
) -> list[Head]:
    """Go on from turns all over a chain while it is deleted; what was stored."""
    begun: list[Head] = []
    for parent in heads[:: _TURNS // 10] * 3:
        if deletion.done():
            break
        try:
            begun.append(await complete_turn(store, parent=parent))
        except (HistoryChangedError, AssertionError):
            # Gone before it began, or right after.
            continue
    return begun


@pytest.mark.parametrize("kind", STORES)
async def test_descendants_of_a_turn_go_with_those_that_begin_meanwhile(
    kind: str, tmp_path: Path
) -> None:
    async with opener(kind, tmp_path)() as store:
        (root,) = await complete_turns(store, 1)
        heads = await complete_turns(store, _TURNS, root)
        branches = [await complete_turn(store, parent=one) for one in heads[::30]]
        deletion = asyncio.ensure_future(store.delete("", heads[0].response_id, cascade=True))
        begun = await _continue_until(store, heads, deletion)
        assert await deletion
        for head in (*heads, *branches, *begun):
            assert await store.head("", head.response_id) is None
        assert await ids_of(store, await head_of(store, root.response_id)) == ids([root])
        assert not await store.delete("", heads[0].response_id, cascade=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", STORES)
async def test_chat_goes_whole(kind: str, tmp_path: Path) -> None:
    async with opener(kind, tmp_path)() as store:
        heads = await complete_turns(store, _TURNS)
        kept = await complete_turn(store, "another chat")
        (chat,) = await store.stores.chats.find("", [heads[-1].response_id])
        assert chat is not None
        assert await store.stores.chats.delete("", chat.id)
        assert await store.stores.chats.get("", chat.id) is None
        assert not await store.stores.chats.delete("", chat.id)
        for head in heads:
            assert await store.head("", head.response_id) is None
        assert await store.head("", kept.response_id) is not None


@pytest.mark.slow
@pytest.mark.parametrize("kind", STORES)
async def test_conversation_leaves_what_a_branch_outside_needs(kind: str, tmp_path: Path) -> None:
    async with opener(kind, tmp_path)() as store:
        conversation, heads = await _grow_conversation(store)
        outside = await complete_turn(store, parent=heads[9])
        assert await store.stores.conversations.delete("", conversation)
        assert await store.stores.conversations.get("", conversation) is None
        assert await ids_of(store, outside) == ids([*heads[:10], outside])
        for head in heads[10:]:
            assert await store.head("", head.response_id) is None
