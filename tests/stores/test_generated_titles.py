"""Titles that a model made, in every store: never over a person's, and erased with any word."""

from __future__ import annotations

from pathlib import Path

from antiphon.core.turns import DEFAULT_TENANT
from antiphon.turn.chat_protocols import ChatUpdate
from antiphon.turn.store_protocols import Head
from support.side_stores import all_bytes
from support.store_turns import (
    Opener,
    StoreWithStores,
    complete_turn,
    complete_turns,
    head_of,
    opener,
)


async def title_of(store: StoreWithStores, head: Head) -> str | None:
    chat = await store.stores.chats.get(head.tenant, head.response_id)
    assert chat is not None
    return chat.title


async def test_generated_title_is_set_once_and_a_person_may_replace_it(store_in: Opener) -> None:
    async with store_in() as store:
        chats = store.stores.chats
        head = await complete_turn(store, "What is a fugue?")
        assert await chats.set_generated_title(head, "Fugues")
        assert await title_of(store, head) == "Fugues"
        assert not await chats.set_generated_title(head, "More fugues")
        await chats.update(DEFAULT_TENANT, head.response_id, ChatUpdate(title="Mine"))
        assert not await chats.set_generated_title(head, "Fugues")
        assert await title_of(store, head) == "Mine"


async def test_title_that_a_person_set_outlives_an_erasure_and_a_generated_one_does_not(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        chats = store.stores.chats
        for is_generated in (True, False):
            first, second = await complete_turns(store, 2)
            if is_generated:
                assert await chats.set_generated_title(second, "A title")
            else:
                await chats.update(DEFAULT_TENANT, first.response_id, ChatUpdate(title="A title"))
            assert await store.delete(DEFAULT_TENANT, second.response_id)
            expected = "question 0" if is_generated else "A title"
            assert await title_of(store, first) == expected


async def test_title_is_refused_where_something_was_erased_since_its_words_were_read(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        chats = store.stores.chats
        first, second = await complete_turns(store, 2)
        seen = await head_of(store, first.response_id)
        assert await store.delete(DEFAULT_TENANT, second.response_id)
        assert not await chats.set_generated_title(seen, "Of what is gone")
        assert await title_of(store, first) == "question 0"
        assert await chats.set_generated_title(await head_of(store, first.response_id), "Of now")
        last = await head_of(store, first.response_id)
        assert await store.delete(DEFAULT_TENANT, first.response_id)
        assert not await chats.set_generated_title(last, "Of nothing")
        assert await chats.get(DEFAULT_TENANT, first.response_id) is None


async def test_generated_title_goes_with_an_item_of_its_turn(store_in: Opener) -> None:
    async with store_in() as store:
        chats = store.stores.chats
        head = await complete_turn(store, "What is a fugue?")
        assert await chats.set_generated_title(head, "Fugues")
        assert await store.stores.conversations.erase_item(DEFAULT_TENANT, head.response_id, 1)
        assert await title_of(store, head) == "What is a fugue?"
        assert not await chats.set_generated_title(head, "Fugues")


async def test_no_byte_of_an_erased_generated_title_is_left_in_the_file(tmp_path: Path) -> None:
    async with opener("sqlite", tmp_path)() as store:
        first, second = await complete_turns(store, 2)
        assert await store.stores.chats.set_generated_title(first, "Zanzibarian")
        assert await store.delete(DEFAULT_TENANT, second.response_id)
    assert b"Zanzibarian" not in all_bytes(tmp_path)
