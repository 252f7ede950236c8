"""Groups of index segments: made when a tenant has many, searched, and deleted with their first."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.ids import response_id_of
from antiphon.stores.sqlite.search import index, indexing, pending
from antiphon.stores.sqlite.search.group import GroupMember, build_group
from antiphon.stores.sqlite.search.segment import (
    build_segment,
    find_postings,
    hash_term,
)
from antiphon.stores.sqlite.store import SqliteStore
from stores.sqlite.search.test_indexing import is_consistent, search_ids, wait_until_indexed
from stores.sqlite.search.test_segment import turn_of
from support.side_stores import all_bytes, query_file
from support.store_turns import complete_turn, opener, sqlite

_WORDS = st.lists(st.integers(0, 60).map(lambda n: f"w{n}"), min_size=1, max_size=40)


@given(st.lists(_WORDS, min_size=1, max_size=12))
def test_group_says_which_segments_have_each_word(texts: list[list[str]]) -> None:
    members = []
    for number, words in enumerate(texts):
        segment = build_segment([turn_of(number, 0.0, " ".join(words))])
        assert segment is not None
        bodies = segment.bucket_bodies
        members.append(GroupMember(number, segment.secret, 1, segment.words, bodies))
    group = build_group("", members)
    assert (group.turns, group.words) == (len(texts), sum(map(len, texts)))
    bodies_by_number = dict(group.bucket_bodies)
    for word in {"w0", "absent", *(word for words in texts for word in words)}:
        name = hash_term(word)
        number = name & group.bucket_count - 1
        body = bodies_by_number.get(number, b"\0\0")
        found = set(find_postings(body, group.secret, number, name))
        assert found == {number for number, words in enumerate(texts) if word in words}


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of four turns, and groups of three segments as soon as there are five."""
    for module in (index, indexing, pending):
        monkeypatch.setattr(module, "MAX_SEGMENT_TURNS", 4)
    monkeypatch.setattr(indexing, "GROUP_SEGMENTS", 3)
    monkeypatch.setattr(indexing, "MAX_SINGLE_SEGMENTS", 5)


def group_count(path: Path) -> int:
    (count,) = query_file(path, "SELECT count(*) FROM search_groups")[0]
    assert isinstance(count, int)
    return count


def response_id_in_segment(path: Path, segment_id: object) -> str:
    query = (
        "SELECT r.id FROM search_segment_turns AS t JOIN responses AS r USING (row_id)"
        " WHERE t.segment = ? LIMIT 1"
    )
    ((key,),) = query_file(path, query, segment_id)
    assert isinstance(key, bytes)
    return response_id_of(key)


def grouped_id(path: Path) -> str:
    """A response whose segment is in a group."""
    query = "SELECT id FROM search_segments WHERE group_id IS NOT NULL LIMIT 1"
    return response_id_in_segment(path, query_file(path, query)[0][0])


async def store_numbered(store: SqliteStore, count: int) -> list[str]:
    """Turns with a word that all have, one that every seventh has, and one of their own."""
    texts = [f"common seventh{number % 7} number{number}" for number in range(count)]
    ids = [(await complete_turn(store, text, "canaryword")).response_id for text in texts]
    await search_ids(store, "common")
    await wait_until_indexed(store)
    return ids


@pytest.mark.usefixtures("small_groups")
async def test_grouped_turns_are_found_by_all_their_words(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        ids = await store_numbered(store, 80)
        assert group_count(path) >= 5
        assert is_consistent(path)
        assert set(await search_ids(store, "common")) == set(ids)
        assert set(await search_ids(store, "common seventh3")) == set(ids[3::7])
        for number in range(0, 80, 9):
            assert await search_ids(store, f"number{number}") == [ids[number]]
            query = f"number{number} seventh{number % 7} common"
            assert await search_ids(store, query) == [ids[number]]
            assert await search_ids(store, f"number{number} number{number + 1}") == []
        assert await search_ids(store, "absent") == []


@pytest.mark.usefixtures("small_groups")
async def test_erasure_replaces_the_secrets_of_the_segment_and_the_group(
    tmp_path: Path,
) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        ids = await store_numbered(store, 80)
        secrets = {secret for (secret,) in query_file(path, "SELECT secret FROM search_secrets")}
        groups = group_count(path)
        erased = grouped_id(path)
        await store.delete("", erased)
        ids.remove(erased)
        assert group_count(path) == groups
        await store.stores.idempotency.release("", "")
        now = {secret for (secret,) in query_file(path, "SELECT secret FROM search_secrets")}
        gone = secrets - now
        assert len(gone) == 2
        file_bytes = all_bytes(path.parent)
        assert not [secret for secret in gone if isinstance(secret, bytes) and secret in file_bytes]
        assert query_file(path, "SELECT count(*) FROM search_secrets") == [(len(secrets),)]
        assert is_consistent(path)
        assert set(await search_ids(store, "common")) == set(ids)


@pytest.mark.usefixtures("small_groups")
async def test_group_is_discarded_where_its_segments_have_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        await store_numbered(store, 16)
        # Nothing is indexed in the background from here on.
        monkeypatch.setattr(index.SqliteSearchIndex, "on_turn_end", lambda self: None)
        await asyncio.gather(*[complete_turn(store, "common") for _ in range(4)])
        await store._database.apply_deferred()
        plan = await store._database.read_pooled(lambda one: indexing.read_plan(one, None, 1))
        assert plan is not None
        assert await store._database.submit(indexing.apply_plan, plan)
        group = await store._database.read_pooled(lambda one: indexing.read_group(one, ""))
        assert group is not None
        segment_id, _ = group.members[0]
        await store.delete("", response_id_in_segment(path, segment_id))
        assert not await store._database.submit(indexing.apply_group, group)
        assert group_count(path) == 0
        assert is_consistent(path)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("seed", range(3))
async def test_both_stores_find_the_same_while_groups_come_and_go(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    words = [f"word{number}" for number in range(30)]
    async with opener("memory", tmp_path)() as memory, opener("sqlite", tmp_path)() as file:
        assert isinstance(file, SqliteStore)
        ids: list[tuple[str, str]] = []
        for _ in range(120):
            text = " ".join(chance.choices(words, k=6))
            heads = [await complete_turn(store, text, "") for store in (memory, file)]
            ids.append((heads[0].response_id, heads[1].response_id))
            if chance.random() < 0.1:
                one, other = ids.pop(chance.randrange(len(ids)))
                await memory.delete("", one)
                await file.delete("", other)
            if chance.random() < 0.3:
                # Segments are so small here that more turns may wait than a search reads.
                await search_ids(file, "absent")
                await wait_until_indexed(file)
                query = " ".join(chance.choices(words, k=chance.randint(1, 3)))
                hits = [
                    await store.stores.search.search("", query, 999) for store in (memory, file)
                ]
                expected = {other for one, other in ids if one in {h.response_id for h in hits[0]}}
                assert {hit.response_id for hit in hits[1]} == expected
        await wait_until_indexed(file)
        assert is_consistent(tmp_path / "turns.db")
        assert group_count(tmp_path / "turns.db")
