"""Chats as a whole in every store: imported once, whatever was there, and listed with branches."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec
import pytest

from antiphon.core.ids import new_response_id
from antiphon.core.retention import DAY_SECONDS, RetentionPolicy
from antiphon.core.turns import End, Header
from antiphon.errors import StoreError
from antiphon.turn.transfer_protocols import (
    ChatImport,
    ConversationImport,
    TreeTurn,
    TurnImport,
)
from support.store_turns import (
    ManualClock,
    Opener,
    StoreWithStores,
    assistant,
    blob_of,
    image_message,
    new_turn,
    opener,
    user,
)

NOW = 1_800_000_000.0
THEN = 1_700_000_000.0


def imported(name: str, parent: int | None = None, *, is_of_words: bool = False) -> TurnImport:
    return TurnImport(
        new_response_id(),
        THEN,
        Header("gpt-4o"),
        [user(f"question {name}")],
        [assistant(f"answer {name}")],
        End("completed", THEN + 1),
        hashlib.sha256(name.encode()).digest(),
        parent,
        is_of_words=is_of_words,
    )


def chat_of(*turns: TurnImport, tenant: str = "") -> ChatImport:
    return ChatImport(tenant, turns, THEN, THEN + 1)


#: a - b - c, and d beside b.
def forked() -> ChatImport:
    return chat_of(imported("a"), imported("d", 0), imported("b", 0), imported("c", 2))


async def test_imported_turns_do_not_count_as_usage(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        await store.stores.chat_transfer.import_chat(forked())
        assert await store.stores.chats.usage_sums("", 0, 10**6) == []


async def words(store: StoreWithStores, response_id: str, tenant: str = "") -> list[bytes]:
    head = await store.head(tenant, response_id)
    assert head is not None
    return [item for turn in await store.chain(head) for item in (*turn.input, *turn.output)]


async def test_a_chat_is_imported_with_its_branches(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        chat = forked()
        result = await store.stores.chat_transfer.import_chat(chat)
        assert (result.added, result.erased) == (4, 0)
        assert result.response_ids == tuple(turn.response_id for turn in chat.turns)
        a, d, b, c = result.response_ids
        expected = [
            line
            for name in "abc"
            for line in (user(f"question {name}"), assistant(f"answer {name}"))
        ]
        assert await words(store, c) == expected
        tree = await store.stores.chat_transfer.tree("", d)
        assert sorted(tree, key=lambda one: one.response_id) == sorted(
            [
                TreeTurn(a, THEN, None),
                TreeTurn(d, THEN, a),
                TreeTurn(b, THEN, a),
                TreeTurn(c, THEN, b),
            ],
            key=lambda one: one.response_id,
        )
        places = {one.response_id: index for index, one in enumerate(tree)}
        assert all(
            one.parent is None or places[one.parent] < places[one.response_id] for one in tree
        )
        turn = await store.turn("", c)
        assert turn is not None
        assert (turn.created_at, turn.end) == (THEN, End("completed", THEN + 1))
        assert turn.header == Header("gpt-4o")


async def test_an_imported_chat_is_listed_with_its_own_times_and_title(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        chat = msgspec.structs.replace(
            forked(), title="Fruit", is_pinned=True, metadata={"a": "b"}, updated_at=THEN + 9
        )
        result = await store.stores.chat_transfer.import_chat(chat)
        found = await store.stores.chats.get("", result.chat_id)
        assert found is not None
        assert (found.created_at, found.updated_at) == (THEN, THEN + 9)
        assert (found.title, found.is_pinned, found.metadata) == ("Fruit", True, {"a": "b"})
        assert (found.head, found.turns, found.branches) == (result.response_ids[3], 3, 2)
        turn = new_turn("More", created_at=NOW + 5, parent=await store.head("", found.head))
        await store.begin(turn)
        await store.write(turn.response_id, [], End("completed", NOW + 6))
        found = await store.stores.chats.get("", result.chat_id)
        assert found is not None
        assert (found.updated_at, found.head) == (NOW + 5, turn.response_id)
        grown = msgspec.structs.replace(chat, turns=(*chat.turns, imported("e", 3)), title="Other")
        await store.stores.chat_transfer.import_chat(grown)
        found = await store.stores.chats.get("", result.chat_id)
        assert found is not None
        assert (found.created_at, found.updated_at, found.title) == (THEN, NOW + 5, "Fruit")


def in_conversation(chat: ChatImport, head: int | None) -> ChatImport:
    """A chat all turns of which are of a conversation."""
    replace = msgspec.structs.replace
    header = Header("gpt-4o", conversation="conv_" + "c" * 32)
    one = ConversationImport("conv_" + "c" * 32, THEN, {"about": "rivers"}, head)
    turns = [replace(turn, header=header) for turn in chat.turns]
    return replace(chat, turns=turns, conversation=one)


async def test_a_chat_brings_its_conversation_once(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        chat = in_conversation(forked(), head=1)
        conversations, transfer = store.stores.conversations, store.stores.chat_transfer
        result = await transfer.import_chat(chat)
        assert result.conversation_id == "conv_" + "c" * 32
        (one,) = await conversations.list_conversations("", 10)
        assert (one.id, one.created_at) == ("conv_" + "c" * 32, THEN)
        assert (one.metadata, one.head) == ({"about": "rivers"}, result.response_ids[1])
        listed = await store.stores.chats.get("", one.id)
        assert listed is not None
        assert (listed.id, listed.conversation, listed.head) == (result.chat_id, one.id, one.head)
        assert (await transfer.import_chat(chat)).conversation_id == one.id
        assert await conversations.list_conversations("", 10) == [one]
        assert await conversations.delete("", one.id)
        assert await store.head("", result.response_ids[0]) is None


async def test_the_head_of_a_conversation_moves_on_to_new_turns_that_continue_it(
    store_in: Opener,
) -> None:
    async with store_in(ManualClock(NOW)) as store:
        conversations, transfer = store.stores.conversations, store.stores.chat_transfer
        a, b, c, d = imported("a"), imported("b", 0), imported("c", 1), imported("d", 0)
        heads = []
        for chat, head in (
            (chat_of(a, b), 1),
            (chat_of(a, b, c), 2),
            # Not to one beside it.
            (chat_of(a, b, c, d), 3),
        ):
            result = await transfer.import_chat(in_conversation(chat, head))
            assert result.added > 0
            (one,) = await conversations.list_conversations("", 10)
            heads.append(result.response_ids.index(one.head or ""))
        assert heads == [1, 2, 2]


async def test_a_conversation_whose_id_is_taken_gets_another(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        chats = [in_conversation(chat_of(imported(name)), head=0) for name in "ab"]
        first, second = [await transfer.import_chat(chat) for chat in chats]
        assert first.conversation_id != second.conversation_id
        found = await store.stores.conversations.list_conversations("", 10)
        assert {(one.id, one.head) for one in found} == {
            (first.conversation_id, first.response_ids[0]),
            (second.conversation_id, second.response_ids[0]),
        }


async def test_several_first_turns_are_one_chat(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        chat = chat_of(imported("a"), imported("b"), imported("c", 1))
        result = await store.stores.chat_transfer.import_chat(chat)
        (found,) = await store.stores.chats.list_chats("", 10)
        assert (found.id, found.head, found.branches) == (result.chat_id, result.response_ids[2], 2)
        grown = msgspec.structs.replace(chat, turns=(*chat.turns, imported("d")))
        again = await store.stores.chat_transfer.import_chat(grown)
        assert (again.chat_id, again.added) == (result.chat_id, 1)
        (found,) = await store.stores.chats.list_chats("", 10)
        tree = await store.stores.chat_transfer.tree("", result.response_ids[0])
        assert (found.branches, len(tree)) == (3, 4)
        assert await store.stores.chats.delete("", found.id)
        assert await store.stores.chats.list_chats("", 10) == []


async def test_importing_again_adds_only_what_is_new(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        first = await transfer.import_chat(forked())
        again = await transfer.import_chat(forked())
        assert (again.response_ids, again.added) == (first.response_ids, 0)
        grown = msgspec.structs.replace(
            forked(), turns=(*forked().turns, imported("e", 3), imported("f", 3))
        )
        more = await transfer.import_chat(grown)
        assert (more.response_ids[:4], more.added) == (first.response_ids, 2)
        assert len(await words(store, more.response_ids[5])) == 8
        assert len(await transfer.tree("", first.response_ids[0])) == 6


async def test_imports_at_once_are_one(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        results = await asyncio.gather(*(transfer.import_chat(forked()) for _ in range(5)))
        assert len({one.response_ids for one in results}) == 1
        assert sum(one.added for one in results) == 4


async def test_tenants_do_not_know_each_others_imports(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        chat = forked()
        mine = await transfer.import_chat(msgspec.structs.replace(chat, tenant="me"))
        theirs = await transfer.import_chat(msgspec.structs.replace(chat, tenant="them"))
        assert (mine.added, theirs.added) == (4, 4)
        assert not set(mine.response_ids) & set(theirs.response_ids), "an id that is taken is not"
        assert await transfer.tree("me", theirs.response_ids[0]) == []
        assert await store.turn("me", theirs.response_ids[0]) is None


async def test_a_turn_is_known_by_its_response_id(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        turn = new_turn("Hi", created_at=NOW)
        await store.begin(turn)
        await store.write(turn.response_id, [assistant("Hello")], End("completed", NOW))
        same = msgspec.structs.replace(imported("x"), response_id=turn.response_id)
        result = await store.stores.chat_transfer.import_chat(chat_of(same, imported("y", 0)))
        assert (result.response_ids[0], result.added) == (turn.response_id, 1)
        expected = [user("Hi"), assistant("Hello"), user("question y"), assistant("answer y")]
        assert await words(store, result.response_ids[1]) == expected


async def test_an_erased_turn_is_not_imported_again(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        first = await transfer.import_chat(forked())
        a, d, b, c = first.response_ids
        await store.delete("", b)
        again = await transfer.import_chat(forked())
        assert (again.added, again.erased, again.response_ids) == (0, 1, first.response_ids)
        grown = msgspec.structs.replace(forked(), turns=(*forked().turns, imported("e", 2)))
        more = await transfer.import_chat(grown)
        assert (more.added, more.erased) == (1, 1)
        said = await words(store, more.response_ids[4])
        assert said == [
            user("question a"),
            assistant("answer a"),
            user("question e"),
            assistant("answer e"),
        ]
        tree = {one.response_id: one.parent for one in await transfer.tree("", d)}
        assert tree == {a: None, d: a, c: a, more.response_ids[4]: a}


async def test_a_chat_of_which_nothing_is_left_is_imported_anew(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        first = await transfer.import_chat(forked())
        await store.delete("", first.response_ids[0], cascade=True)
        again = await transfer.import_chat(forked())
        assert (again.added, again.erased) == (4, 0)
        assert (await transfer.import_chat(forked())).added == 0
        assert len(await words(store, again.response_ids[3])) == 6


async def test_a_digest_of_words_goes_with_them(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        transfer = store.stores.chat_transfer
        turns = (
            imported("a", is_of_words=True),
            imported("b", 0, is_of_words=True),
            imported("c", 1, is_of_words=True),
        )
        first = await transfer.import_chat(chat_of(*turns))
        await store.delete("", first.response_ids[1])
        fresh = [msgspec.structs.replace(turn, response_id=new_response_id()) for turn in turns]
        again = await transfer.import_chat(chat_of(*fresh))
        assert (again.added, again.erased) == (2, 0), "b, and c whose digest held b's words"
        assert again.response_ids[0] == first.response_ids[0]


async def test_an_imported_chat_is_as_old_as_its_import(store_in: Opener) -> None:
    clock = ManualClock(NOW)
    async with store_in(clock, RetentionPolicy(DAY_SECONDS)) as store:
        transfer = store.stores.chat_transfer
        first = await transfer.import_chat(in_conversation(forked(), head=0))
        turn = await store.turn("", first.response_ids[0])
        assert turn is not None
        assert turn.expires_at == NOW + DAY_SECONDS
        assert first.conversation_id is not None
        assert await store.stores.conversations.get("", first.conversation_id) is not None
        clock.now = turn.expires_at + 1
        assert await store.turn("", first.response_ids[0]) is None
        assert await transfer.tree("", first.response_ids[0]) == []
        assert await store.stores.conversations.get("", first.conversation_id) is None
        again = await transfer.import_chat(forked())
        assert again.added == 4
        assert await store.turn("", again.response_ids[0]) is not None


async def test_images_come_along_and_are_stored_once(store_in: Opener) -> None:
    async with store_in(ManualClock(NOW)) as store:
        blob = blob_of(b"\x89PNG\r\n\x1a\n" + b"x" * 100)
        with_image = [
            msgspec.structs.replace(one, input=[image_message(blob)], blobs=(blob,))
            for one in (imported("a"), imported("b", 0))
        ]
        result = await store.stores.chat_transfer.import_chat(chat_of(*with_image))
        for name in result.response_ids:
            turn = await store.turn("", name)
            assert turn is not None
            assert turn.blobs == {blob.hash: blob.data}


async def test_an_import_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    async with opener("sqlite", tmp_path)(ManualClock(NOW)) as store:
        broken = msgspec.structs.replace(imported("z", 0), input=[user("x")] * 40_000)
        chat = chat_of(imported("a"), broken)
        with pytest.raises(StoreError):
            await store.stores.chat_transfer.import_chat(chat)
        assert await store.turn("", chat.turns[0].response_id) is None
        assert (await store.stores.chat_transfer.import_chat(chat_of(imported("a")))).added == 1
