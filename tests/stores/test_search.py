"""Search in every store: one suite that every store passes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.items import (
    Compaction,
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    encode_item,
)
from antiphon.core.retention import RetentionPolicy
from antiphon.core.turns import End, Header
from antiphon.errors import InvalidRequestError
from antiphon.turn.search_protocols import SearchHit
from support.example_counts import examples
from support.store_turns import (
    DONE,
    STORES,
    ManualClock,
    Opener,
    StoreWithStores,
    begin_turn,
    complete_turn,
    head_of,
    new_turn,
    opener,
    run,
)


async def search_ids(
    store: StoreWithStores, query: str, limit: int = 20, tenant: str = ""
) -> list[str]:
    """The ids of the hits."""
    return [hit.response_id for hit in await store.stores.search.search(tenant, query, limit)]


async def search_pages(
    store: StoreWithStores,
    query: str,
    limit: int,
    tenant: str = "",
    chat_id: str | None = None,
) -> list[str]:
    """The ids of the hits, in all chats or in one, read page by page."""
    return await read_pages(
        partial(store.stores.search.search, tenant, query, limit, chat_id=chat_id), limit
    )


async def read_pages(
    search: Callable[..., Awaitable[Sequence[SearchHit]]], limit: int
) -> list[str]:
    """The ids of the hits of a search, page by page."""
    ids: list[str] = []
    while page := await search(after=ids[-1] if ids else None):
        assert len(page) <= limit
        ids += [hit.response_id for hit in page]
        assert len(set(ids)) == len(ids)
    return ids


async def store_texts(store: StoreWithStores, *texts: str) -> list[str]:
    """Stores a turn for each text; returns their ids."""
    return [(await complete_turn(store, text, "")).response_id for text in texts]


async def test_turn_is_found_by_its_text_as_soon_as_it_ends(store_in: Opener) -> None:
    async with store_in() as store:
        assert await search_ids(store, "piano") == []
        head = await begin_turn(store, "Who tunes a piano?")
        assert await search_ids(store, "piano") == []
        answer = encode_item(Message("assistant", "A tuner."))
        await store.write(head.response_id, [answer], End("failed", 1.0))
        for query in ("piano", "PIANO tuner", "who? A piano!", "tuner a tunes"):
            assert await search_ids(store, query) == [head.response_id], query
        for query in ("pian", "piano player", "pianos"):
            assert await search_ids(store, query) == [], query


async def test_hit_has_an_excerpt_time_and_conversation(store_in: Opener) -> None:
    async with store_in() as store:
        named = Header("a-model", conversation="conv_" + "ab" * 16)
        for header in (named, Header("a-model")):
            new = new_turn("Is the Café\n open?", header=header, created_at=123.5)
            store.begin(new)
            answer = encode_item(Message("assistant", "The café is closed."))
            await store.write(new.response_id, [answer], DONE)
            hits = await store.stores.search.search("", "cafe", 9)
            (hit,) = [hit for hit in hits if hit.response_id == new.response_id]
            assert hit.created_at == 123.5
            assert hit.conversation == header.conversation
            assert hit.excerpt == "Is the «Café» open? The «café» is closed."


async def test_what_people_models_and_tools_said_is_searched_and_nothing_else(
    store_in: Opener,
) -> None:
    async with store_in() as store:
        items: list[Item] = [
            Message("user", (InputText("canaryparts"), InputImage("blob:canaryimage"))),
            Message("system", "canarysystem"),
            Message("developer", "canarydeveloper"),
            FunctionCall("canarycall", "canaryname", '{"canaryargument": 1}'),
            FunctionCallOutput("canarycall", "canaryoutput"),
            Compaction("canarysummary"),
        ]
        new = new_turn(header=Header("canarymodel", "canaryinstructions"))
        await store.begin(new)
        await store.write(new.response_id, [encode_item(item) for item in items], DONE)
        words = "parts summary image system developer output call name argument model instructions"
        hits = [word for word in words.split() if await search_ids(store, f"canary{word}")]
        assert hits == ["parts", "summary", "output", "name", "argument"]


async def test_undecodable_items_do_not_hide_other_text(store_in: Opener) -> None:
    async with store_in() as store:
        head = await begin_turn(store, "readable")
        await store.write(head.response_id, [b"", b"\xff", b"{}", b'{"type":"new"}'], DONE)
        assert await search_ids(store, "readable") == [head.response_id]


INJECTED = ["'; DROP TABLE log; --", '"', "a AND", "NEAR(", "*", "-x", "^", "{}:", "\0", "\ud800"]
LONG = ["(" * 50, "word " * 2_000, "字" * 5_000]


@pytest.mark.parametrize("query", ["", " ", "?!", "💔", *INJECTED, *LONG])
async def test_any_text_is_a_valid_query(store_in: Opener, query: str) -> None:
    async with store_in() as store:
        await complete_turn(store)
        assert await search_ids(store, query) == []


async def test_query_operators_are_plain_words(store_in: Opener) -> None:
    async with store_in() as store:
        (one, _) = await store_texts(store, 'neither or NOT (near) "and" it\'s', "a b")
        assert await search_ids(store, 'NOT "near" AND or') == [one]
        assert await search_ids(store, "it's*") == [one]


async def test_all_scripts_are_searchable(store_in: Opener) -> None:
    async with store_in() as store:
        texts = {
            "私は東京都に住んでいます": ["東京", "東京都", "都", "住んで"],
            "我在北京学习中文": ["北京", "学习 中文", "中"],
            "한국어를 공부합니다": ["한국", "공부"],
            "Где живёт ёж?": ["еж", "ЖИВЕТ"],
            "मुझे हिन्दी आती है": ["हिन्दी"],
            "ฉันชอบข้าวผัด": ["ข้าว"],
            "Crème brûlée für Straße": ["creme brulee", "STRASSE"],
        }
        ids = await store_texts(store, *texts)
        for response_id, queries in zip(ids, texts.values(), strict=True):
            for query in queries:
                assert await search_ids(store, query) == [response_id], query
        assert await search_ids(store, "京東") == []
        # The text has all its pairs, but not the word.
        assert await search_ids(store, "京都に") == ids[:1]
        assert await search_ids(store, "東京学") == []


async def test_hits_are_ordered_by_relevance_then_newest(store_in: Opener) -> None:
    async with store_in() as store:
        old, long, twice, new, _ = await store_texts(
            store,
            "apple pie",
            "apple " + "and nothing but filler " * 20,
            "apple apple",
            "apple pie",
            "no fruit here",
        )
        assert await search_ids(store, "apple") == [twice, new, old, long]
        assert await search_ids(store, "apple", 2) == [twice, new]
        assert await search_ids(store, "apple", 0) == await search_ids(store, "apple", -1) == []
        rare = await store_texts(store, "pie pie apple", "apple apple pie")
        # "pie" is in fewer turns, so it has more weight.
        assert (await search_ids(store, "apple pie"))[:2] == rare


async def test_search_is_limited_to_the_tenant(store_in: Opener) -> None:
    async with store_in() as store:
        mine = await complete_turn(store, "secret plan", tenant="me")
        theirs = await complete_turn(store, "secret plan", tenant="them")
        assert await search_ids(store, "secret", tenant="me") == [mine.response_id]
        assert await search_ids(store, "secret", tenant="them") == [theirs.response_id]
        assert (
            await search_ids(store, "secret") == await search_ids(store, "secret", tenant="m") == []
        )
        before = await store.stores.search.search("me", "secret", 1)
        # Nor do other tenants' turns change the ranking.
        for _ in range(3):
            await complete_turn(store, "secret " * 9, tenant="them")
        assert await store.stores.search.search("me", "secret", 1) == before


async def test_deleted_turns_are_not_found(store_in: Opener) -> None:
    async with store_in() as store:
        first = await complete_turn(store, "alpha one")
        second = await complete_turn(store, "alpha two", parent=first)
        third = await complete_turn(store, "alpha three", parent=second)
        branch = await complete_turn(store, "alpha four", parent=second)
        assert len(await search_ids(store, "alpha")) == 4
        await store.delete("", second.response_id)
        remaining = [first.response_id, third.response_id, branch.response_id]
        assert sorted(await search_ids(store, "alpha")) == sorted(remaining)
        assert await search_ids(store, "two") == []
        await store.delete("", first.response_id, cascade=True)
        assert await search_ids(store, "alpha") == []


async def test_turn_deleted_before_indexing_is_not_found(store_in: Opener) -> None:
    async with store_in() as store:
        head = await complete_turn(store, "alpha")
        running = await begin_turn(store, "alpha")
        await store.delete("", head.response_id)
        await store.delete("", running.response_id)
        await store.write(running.response_id, [], DONE)
        assert await search_ids(store, "alpha") == []


async def test_erased_item_is_not_found_but_its_turn_is(store_in: Opener) -> None:
    async with store_in() as store:
        head = await complete_turn(store, "question alpha", "answer beta")
        assert await search_ids(store, "alpha beta") == [head.response_id]
        assert await store.stores.conversations.erase_item("", head.response_id, 0)
        assert await search_ids(store, "alpha") == []
        assert await search_ids(store, "beta") == [head.response_id]


async def test_turns_of_a_deleted_conversation_are_not_found(store_in: Opener) -> None:
    async with store_in() as store:
        made = await store.stores.conversations.create("", {})
        new = new_turn("alpha", header=Header("m", conversation=made.id))
        store.begin(new)
        await store.write(new.response_id, [], DONE)
        assert await search_ids(store, "alpha") == [new.response_id]
        await store.stores.conversations.delete("", made.id)
        assert await search_ids(store, "alpha") == []


async def test_expired_turns_are_not_found(store_in: Opener) -> None:
    clock = ManualClock(1_000.0)
    async with store_in(clock, RetentionPolicy(100.0)) as store:
        new = new_turn("alpha", created_at=1_000.0)
        store.begin(new)
        await store.write(new.response_id, [], DONE)
        clock.now = 1_099.0
        assert await search_ids(store, "alpha") == [new.response_id]
        clock.now = 1_100.0
        assert await search_ids(store, "alpha") == []
        await store.stores.response_index.delete_expired()
        assert await search_ids(store, "alpha") == []


async def test_all_turns_are_found_across_index_segments(store_in: Opener) -> None:
    async with store_in() as store:
        ids: set[str] = set()
        for count in (1, 1, 1, 3, 300, 1, 270, 2):
            heads = await asyncio.gather(
                *[complete_turn(store, f"common number{len(ids) + n}") for n in range(count)]
            )
            ids |= {head.response_id for head in heads}
            hits = await search_ids(store, "common", 1_000)
            assert len(hits) == len(ids)
            assert set(hits) == ids
        for number in (0, 2, 5, 200, 305, 306, 578):
            assert len(await search_ids(store, f"number{number} common")) == 1


async def test_search_within_a_chat_finds_what_was_said_in_its_branches(store_in: Opener) -> None:
    async with store_in() as store:
        first = await complete_turn(store, "heron one")
        second = await complete_turn(store, "heron two", parent=first)
        branch = await complete_turn(store, "heron three", parent=first)
        other = await complete_turn(store, "heron four")
        # As many better hits elsewhere as fill several segments.
        await asyncio.gather(*[complete_turn(store, "heron heron") for _ in range(600)])
        ids = [branch.response_id, second.response_id, first.response_id]
        chat = await store.stores.chats.get("", first.response_id)
        assert chat is not None
        for name in (chat.id, second.response_id):
            assert await search_pages(store, "heron", 2, chat_id=name) == ids
        assert await search_pages(store, "four", 9, chat_id=chat.id) == []
        assert await search_pages(store, "heron", 9, chat_id=other.response_id) == [
            other.response_id
        ]
        assert await search_pages(store, "heron", 9, "them", chat_id=chat.id) == []
        assert await search_pages(store, "heron", 9, chat_id="chat_" + "0" * 32) == []
        for after in (other.response_id, "resp_" + "0" * 32):
            with pytest.raises(InvalidRequestError):
                await store.stores.search.search("", "heron", 9, after=after, chat_id=chat.id)


# Against a plain model

_WORDS = ["apple", "pear", "Apple", "東京", "京都", "東京都", "plum.", "and"]
_TEXTS = st.lists(st.sampled_from(_WORDS), max_size=6).map(" ".join)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), _TEXTS, st.sampled_from(["me", "them"])),
        st.tuples(st.just("reply"), _TEXTS, st.integers(0, 20)),
        st.tuples(st.just("delete"), st.integers(0, 20), st.booleans()),
        st.tuples(st.just("erase"), st.integers(0, 20), st.integers(0, 1)),
        st.tuples(st.just("look"), _TEXTS, st.sampled_from(["me", "them"])),
        st.tuples(st.just("look within"), _TEXTS, st.integers(0, 20)),
    ),
    max_size=25,
)


def matches(text: str, query: str) -> bool:
    """Whether a text matches a query, for the words above."""
    words = text.lower().replace(".", "").split()
    return all(
        (wanted in text) if wanted in "東京都" else (wanted in words)
        for wanted in query.lower().replace(".", "").split()
    )


class Model:
    """Texts by turn: tenant, input and output; None: erased."""

    def __init__(self) -> None:
        self.turns: list[tuple[str, list[str]] | None] = []
        #: The turn that each continues.
        self.parents: list[int | None] = []
        #: The same turns in each store.
        self.ids: list[list[str]] = []

    async def apply(
        self, stores: Sequence[StoreWithStores], step: tuple[str, object, object]
    ) -> None:
        match step:
            case ("say", str(text), str(tenant)):
                await self._add_turn(stores, text, tenant, None)
            case ("reply", str(text), int(number)) if number < len(self.turns):
                if self.turns[number] is not None:
                    await self._add_turn(stores, text, self._tenant(number), number)
            case ("delete", int(number), bool(cascade)) if number < len(self.turns):
                for store, response_id in zip(stores, self.ids[number], strict=True):
                    await store.delete(self._tenant(number), response_id, cascade=cascade)
                for other in range(number, len(self.turns)):
                    if other == number or (cascade and number in self._ancestors(other)):
                        self.turns[other] = None
            case ("erase", int(number), int(position)) if number < len(self.turns):
                for store, response_id in zip(stores, self.ids[number], strict=True):
                    erase = store.stores.conversations.erase_item
                    await erase(self._tenant(number), response_id, position)
                if (turn := self.turns[number]) is not None:
                    turn[1][position] = ""
            case ("look", str(query), str(tenant)):
                await self._check_search(stores, query, tenant)
            case ("look within", str(query), int(number)) if number < len(self.turns):
                await self._check_search(stores, query, self._tenant(number), number)

    async def _add_turn(
        self, stores: Sequence[StoreWithStores], text: str, tenant: str, parent: int | None
    ) -> None:
        time = float(len(self.turns))
        ids = []
        for at, store in enumerate(stores):
            head = None if parent is None else await head_of(store, self.ids[parent][at], tenant)
            new = new_turn(text, parent=head, tenant=tenant, created_at=time)
            store.begin(new)
            answer = encode_item(Message("assistant", text[::-1]))
            await store.write(new.response_id, [answer], DONE)
            ids.append(new.response_id)
        self.ids.append(ids)
        self.turns.append((tenant, [text, text[::-1]]))
        self.parents.append(parent)

    def _ancestors(self, number: int | None) -> list[int]:
        """A turn and all that it continues, the first last."""
        found = []
        while number is not None:
            found.append(number)
            number = self.parents[number]
        return found

    async def _check_search(
        self, stores: Sequence[StoreWithStores], query: str, tenant: str, within: int | None = None
    ) -> None:
        """``within``: in the chat of this turn."""
        root = None if within is None else self._ancestors(within)[-1]
        is_there = within is None or self.turns[within] is not None
        expected = {
            number
            for number, turn in enumerate(self.turns)
            if turn and turn[0] == tenant and query and matches(" ".join(turn[1]), query)
            if is_there and root in (None, self._ancestors(number)[-1])
        }
        orders = []
        for at, store in enumerate(stores):
            chat_id = None if within is None else self.ids[within][at]
            hits = await search_pages(store, query, 100, tenant, chat_id)
            assert await search_pages(store, query, 3, tenant, chat_id) == hits
            by_id = {ids[at]: number for number, ids in enumerate(self.ids)}
            orders.append([by_id[hit] for hit in hits])
        assert set(orders[0]) == expected
        assert orders == orders[:1] * len(orders), "all stores find the same in the same order"
        if within is None:
            await self._check_chats(stores, query, tenant, orders[0])

    async def _check_chats(
        self, stores: Sequence[StoreWithStores], query: str, tenant: str, found: list[int]
    ) -> None:
        """Of each chat the best of the turns that were found."""
        best: dict[int, int] = {}
        for number in found:
            best.setdefault(self._ancestors(number)[-1], number)
        for at, store in enumerate(stores):
            wanted = [self.ids[number][at] for number in best.values()]
            for limit in (100, 1):
                search = partial(store.stores.search.search_chats, tenant, query, limit)
                assert await read_pages(search, limit) == wanted

    def _tenant(self, number: int) -> str:
        turn = self.turns[number]
        return turn[0] if turn else "me"


@pytest.mark.parametrize("kinds", [STORES[:2], pytest.param(STORES, marks=pytest.mark.slow)])
@settings(max_examples=examples(25), deadline=None)
@given(steps=_STEPS)
def test_all_stores_agree_with_the_model(
    tmp_path_factory: pytest.TempPathFactory,
    kinds: list[str],
    steps: list[tuple[str, object, object]],
) -> None:
    async def main() -> None:
        folder = tmp_path_factory.mktemp("search")
        model = Model()
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opener(kind, folder)()) for kind in kinds]
            for step in steps:
                await model.apply(stores, step)
            for word in _WORDS:
                await model.apply(stores, ("look", word, "me"))

    run(main())
