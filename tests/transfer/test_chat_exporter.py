"""Exports: a document that is imported into an empty store gives the same document again."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from antiphon.core.ids import new_conversation_id
from antiphon.core.images import Blob
from antiphon.core.items import (
    Compaction,
    ErasedItem,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    Reasoning,
    ReasoningText,
    encode_item,
)
from antiphon.core.turns import ConversationRecord, End, Header, Options, TurnError, Usage
from antiphon.models.model_registry import ModelRegistry
from antiphon.models.scripted import ScriptedModel
from antiphon.stores.memory.store import MemoryStore
from antiphon.stores.sqlite.store import open_sqlite
from antiphon.transfer.chat_exporter import ChatExporter, ordered_tree
from antiphon.transfer.chat_file import ChatFile
from antiphon.transfer.chat_importer import ChatImporter, ImportedChat
from antiphon.turn.chat_protocols import ChatUpdate
from antiphon.turn.chats import ChatService
from antiphon.turn.service import TurnService
from antiphon.turn.transfer_protocols import TreeTurn
from support.chat_exports import chatgpt_chat, png
from support.example_counts import examples
from support.store_turns import DONE, HEADER, StoreWithStores, blob_of, new_turn

BLOBS = [blob_of(png(color)) for color in ("red", "blue")]
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_TIMES = st.floats(1_600_000_000, 1_790_000_000)


def exporter_of(store: StoreWithStores, tenant: str = "") -> ChatExporter:
    models = ModelRegistry({"scripted": ScriptedModel()}, default="scripted")
    service = TurnService(store, models, store.stores)
    return ChatExporter(service, ChatService(service, store.stores), tenant)


async def exported(store: StoreWithStores, tenant: str = "") -> bytes:
    pieces = [piece async for piece in exporter_of(store, tenant).all_documents()]
    return b"".join(pieces)


async def imported(store: StoreWithStores, data: bytes, tenant: str = "") -> list[ImportedChat]:
    importer = ChatImporter(store.stores.chat_transfer, tenant, ChatFile(io.BytesIO(data)))
    return [report async for report in importer.run()]


_ITEMS: st.SearchStrategy[Item] = st.one_of(
    st.builds(Message, st.sampled_from(["user", "assistant", "system"]), _TEXTS),
    st.builds(
        lambda text, blob: Message("user", (InputText(text), InputImage(f"blob:{blob.hash}"))),
        _TEXTS,
        st.sampled_from(BLOBS),
    ),
    st.builds(FunctionCall, st.sampled_from(["a", "b"]), st.just("look"), _TEXTS),
    st.builds(FunctionCallOutput, st.sampled_from(["a", "b"]), _TEXTS),
    st.builds(lambda text: Reasoning(content=(ReasoningText(text),)), _TEXTS),
    st.builds(ErasedItem),
    st.builds(Compaction, _TEXTS),
)
_HEADERS = st.builds(
    Header,
    _TEXTS.map(lambda text: text or "m"),
    st.none() | _TEXTS,
    st.builds(Options, temperature=st.none() | st.floats(0, 2), metadata=st.just({"a": "b"})),
    background=st.booleans(),
)
_ENDS = st.builds(
    End,
    st.sampled_from(["completed", "incomplete", "failed", "cancelled"]),
    _TIMES,
    st.none() | st.builds(Usage, st.integers(0, 9), st.integers(0, 9)),
    st.none() | st.builds(TurnError, st.just("x"), _TEXTS),
    st.none() | st.just("max_output_tokens"),
    st.none() | st.integers(0, 99),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    model=st.none() | st.just("other"),
    cost=st.none() | st.floats(0, 1),
)


class Turn(msgspec.Struct):
    """A turn of a generated chat; ``parent`` is a position, -1: it begins a branch."""

    parent: int
    header: Header
    input: list[Item]
    output: list[Item]
    end: End
    created_at: float


_CHATS = st.lists(
    st.builds(
        Turn,
        st.integers(-1, 6),
        _HEADERS,
        st.lists(_ITEMS, max_size=3),
        st.lists(_ITEMS, max_size=3),
        _ENDS,
        _TIMES,
    ),
    min_size=1,
    max_size=7,
)


def blobs_in(turn: Turn) -> list[Blob]:
    text = b"".join(map(encode_item, (*turn.input, *turn.output)))
    return [blob for blob in BLOBS if blob.hash.encode() in text]


class Talk(msgspec.Struct):
    """Which turns of a generated chat are of a conversation besides the first, and its head."""

    members: set[int]
    head: int
    metadata: dict[str, str]


_TALKS = st.builds(
    Talk,
    st.sets(st.integers(1, 6)),
    st.integers(0, 6),
    st.dictionaries(st.just("about"), _TEXTS),
)


async def write(
    store: StoreWithStores, turns: list[Turn], erased: set[int], talk: Talk | None = None
) -> None:
    names: list[str] = []
    made = ConversationRecord(new_conversation_id(), 1_650_000_000.5, talk.metadata if talk else {})
    for number, turn in enumerate(turns):
        heads = [await store.head("", name) for name in names]
        parent = heads[turn.parent] if 0 <= turn.parent < len(heads) else None
        new = msgspec.structs.replace(
            new_turn(created_at=turn.created_at, header=turn.header, parent=parent),
            conversation=made if talk and not names else None,
            creates_conversation=bool(talk and not names),
            header=msgspec.structs.replace(
                turn.header,
                conversation=made.id if talk and number in {0, *talk.members} else None,
            ),
            input=[encode_item(item) for item in turn.input],
            blobs=blobs_in(turn),
            sibling=None if parent or not heads else heads[0],
        )
        await store.begin(new)
        await store.write(new.response_id, [encode_item(item) for item in turn.output], turn.end)
        names.append(new.response_id)
    seen = await store.stores.conversations.get("", made.id)
    if talk and seen and talk.head < len(names):
        assert await store.stores.conversations.move_head("", seen, names[talk.head])
    for position in erased:
        if position < len(names):
            await store.delete("", names[position])


async def conversations_of(
    store: StoreWithStores, document: bytes | None = None
) -> list[ConversationRecord]:
    """All conversations, or those that a document names."""
    found = await store.stores.conversations.list_conversations("", 10)
    return [one for one in found if document is None or one.id.encode() in document]


_PLAIN = Turn(-1, HEADER, [], [], DONE, 1_700_000_000.0)


@settings(max_examples=examples(25))
# The turn that began the conversation is gone, and another one comes first.
@example([_PLAIN] * 3, {0}, None, Talk({2}, 2, {}))
@given(
    _CHATS,
    st.sets(st.integers(0, 6), max_size=2),
    st.none() | st.sampled_from(["Title", "Über <b>"]),
    st.none() | _TALKS,
)
def test_export_import_export_is_equal(
    turns: list[Turn], erased: set[int], title: str | None, talk: Talk | None
) -> None:
    async def main(folder: str) -> None:
        first = MemoryStore()
        await write(first, turns, erased, talk)
        for chat in await first.stores.chats.list_chats("", 10):
            update = ChatUpdate(title, True, {"k": "v"})
            await first.stores.chats.update("", chat.id, update)
        document = await exported(first)
        if not document:
            # All was erased.
            return
        second = await open_sqlite(Path(folder) / "a.db")
        try:
            for report in await imported(second, document):
                assert (report.status, report.skipped) == ("imported", ())
            assert await conversations_of(second) == await conversations_of(first, document)
            assert await exported(second) == document
            third = MemoryStore()
            await imported(third, document)
            assert await exported(third) == document
            for report in await imported(third, document):
                assert report.status == "unchanged"
            assert await exported(third) == document
            assert await conversations_of(third) == await conversations_of(first, document)
        finally:
            await second.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(folder))


async def test_a_chat_of_another_program_is_exported_whole() -> None:
    store = MemoryStore()
    await imported(store, json.dumps([chatgpt_chat("a"), chatgpt_chat("b")]).encode())
    lines = (await exported(store)).splitlines()
    documents = [json.loads(line) for line in lines]
    assert [one["format"] for one in documents] == ["antiphon.chat"] * 2
    assert [len(one["turns"]) for one in documents] == [3, 3]
    assert documents[0]["chat"] == {"title": "Colours", "created_at": 1_700_000_000.0}
    last = documents[0]["turns"][-1]
    assert (last["model"], last["status"], last["created_at"]) == (
        "gpt-4o",
        "completed",
        1_700_000_020.0,
    )
    assert last["output"] == [{"type": "message", "role": "assistant", "content": "Plum."}]
    assert last["parent"] == documents[0]["turns"][1]["id"]


async def test_only_a_tenants_own_chats_are_exported() -> None:
    store = MemoryStore()
    await imported(store, json.dumps([chatgpt_chat()]).encode(), "acme")
    assert len((await exported(store, "acme")).splitlines()) == 1
    assert await exported(store, "other") == b""


async def test_a_document_whose_ids_are_taken_gets_new_ones() -> None:
    store = MemoryStore()
    await imported(store, json.dumps([chatgpt_chat()]).encode(), "acme")
    document = await exported(store, "acme")
    (report,) = await imported(store, document, "other")
    assert (report.status, report.new_turns) == ("imported", 3)
    again = await exported(store, "other")
    assert again != document
    assert re.sub(rb"resp_[0-9a-f]{32}", b"", again) == re.sub(rb"resp_[0-9a-f]{32}", b"", document)
    (report,) = await imported(store, document, "other")
    assert report.status == "unchanged"


async def test_a_conversation_whose_id_is_taken_gets_a_new_one_and_the_report_says_so() -> None:
    store = MemoryStore()
    turn = Turn(-1, HEADER, [Message("user", "Hi")], [], DONE, 1_700_000_000.0)
    later = msgspec.structs.replace(turn, created_at=turn.created_at + 1)
    await write(store, [turn, later], set(), Talk({1}, 1, {"about": "rivers"}))
    document = await exported(store)
    (theirs,) = await store.stores.conversations.list_conversations("", 10)
    (report,) = await imported(store, document, "other")
    (ours,) = await store.stores.conversations.list_conversations("other", 10)
    assert ours.id != theirs.id == json.loads(document)["conversation"]["id"]
    assert ours.metadata == theirs.metadata
    assert (report.conversation_id, ours.head) == (ours.id, report.response_id)
    assert report.skipped == (f"the id of its conversation, which was taken: it is {ours.id} here",)
    assert report.chat_id is not None
    chat = await store.stores.chats.get("other", report.chat_id)
    assert chat is not None
    assert chat.conversation == ours.id
    (again,) = await imported(store, document, "other")
    assert (again.status, again.conversation_id) == ("unchanged", ours.id)
    assert await store.stores.conversations.list_conversations("other", 10) == [ours]


async def test_hostile_documents_break_nothing() -> None:
    store = MemoryStore()
    await imported(store, json.dumps([chatgpt_chat()]).encode(), "from")
    document = json.loads(await exported(store, "from"))

    def changed(**fields: Any) -> bytes:
        turn = {**document["turns"][0], "id": "resp_" + "0" * 32, **fields}
        return json.dumps({**document, "turns": [turn]}).encode()

    def conversation(**fields: Any) -> bytes:
        one = {"id": "conv_" + "0" * 32, "created_at": 1.5, **fields}
        turns = [{**document["turns"][0], "id": "resp_" + "0" * 32, "in_conversation": True}]
        return json.dumps({**document, "conversation": one, "turns": turns}).encode()

    summary = {"type": "compaction", "summary": "x", "replaced_turns": 10**9}
    missing = {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": "blob:" + "0" * 64},
            {"type": "input_text", "text": "Look"},
        ],
    }
    for data, status, reason in (
        (changed(parent="resp_" + "1" * 32), "imported", "whose parent is not there"),
        (changed(output=[summary]), "imported", "a summary of turns that are not there"),
        (changed(input=[missing]), "imported", "an image whose bytes are not in the document"),
        (changed(input=[{"type": "odd"}]), "failed", "cannot be read"),
        (changed(created_at="x"), "failed", "cannot be read"),
        (changed(id="../../x", input=[]), "imported", ""),
        (conversation(id="../../x"), "imported", "the id of its conversation"),
        (conversation(head="resp_" + "1" * 32), "imported", "head of a conversation"),
        (conversation(id=5), "failed", "no chat document"),
        (json.dumps({**document, "version": 2}).encode(), "failed", "version"),
        (b'{"format":"antiphon.chat","version":1,"turns":5}', "failed", "no chat document"),
        (b'{"format":"antiphon.chat","version":1,"turns":' + b"[" * 10_000, "failed", "middle"),
    ):
        (report,) = await imported(store, data, f"tenant {reason}")
        assert report.status == status, (data, report)
        assert reason in " ".join(report.skipped)


def test_the_last_turn_of_a_document_is_the_newest() -> None:
    turns = [
        TreeTurn("a", 1.0, None),
        TreeTurn("b", 9.0, "a"),
        TreeTurn("c", 2.0, "a"),
        TreeTurn("d", 3.0, "c"),
        TreeTurn("e", 0.0, None),
    ]
    assert [one.response_id for one in ordered_tree(turns)] == ["e", "a", "c", "d", "b"]
