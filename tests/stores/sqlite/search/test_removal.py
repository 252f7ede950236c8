"""Erased turns leave their segments and groups, which are as if they had never been in them."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from antiphon.core.ids import response_id_of, response_key
from antiphon.stores.search_tokenizer import searchable_text, tokenize
from antiphon.stores.sqlite.search import removal
from antiphon.stores.sqlite.search.segment import decode_bucket, decode_turn_entries, hash_term
from antiphon.stores.sqlite.store import SqliteStore
from stores.sqlite.search.test_group import small_groups
from stores.sqlite.search.test_indexing import is_consistent, search_ids, wait_until_indexed
from support.side_stores import query_file
from support.store_turns import complete_turn, sqlite

__all__ = ["small_groups"]

#: What an index says: by hash, the segments or turns that have it, as often as they have it.
_Postings = dict[int, list[int]]


def _decoded(path: Path, owner: int) -> _Postings:
    """What a segment or group says, by the numbers of its turns or segments."""
    ((secret,),) = query_file(path, "SELECT secret FROM search_secrets WHERE id = ?", owner)
    rows = query_file(path, "SELECT id, body FROM search_buckets WHERE id >> 16 = ?", owner)
    assert isinstance(secret, bytes)
    postings: _Postings = {}
    for bucket_id, body in rows:
        assert isinstance(bucket_id, int)
        assert isinstance(body, bytes)
        content = decode_bucket(body, secret, bucket_id & 0xFFFF)
        for name, numbers in zip(content.hashes, content.bodies, strict=True):
            assert numbers, "a term that nothing has any more"
            postings[name] = sorted(numbers)
    return postings


def _expected(texts: Iterable[str]) -> _Postings:
    postings: defaultdict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        for term in tokenize(text):
            postings[hash_term(term.decode())].append(number)
    return dict(postings)


def check_index(path: Path, texts: dict[int, str]) -> int:
    """Compares all segments and groups with the texts of their turns; the number of segments."""
    segments = query_file(
        path, "SELECT id, turns, words, row_ids, turn_entries, group_id FROM search_segments"
    )
    terms: dict[int, set[int]] = {}
    for segment_id, turns, words, row_ids, entries, _ in segments:
        assert isinstance(segment_id, int)
        assert isinstance(row_ids, str)
        assert isinstance(entries, bytes)
        of_segment = [texts[row_id] for row_id in json.loads(row_ids)]
        assert _decoded(path, segment_id) == _expected(of_segment)
        lengths = [len(tokenize(text)) for text in of_segment]
        assert [count for _, count in decode_turn_entries(entries)] == lengths
        assert (turns, words) == (len(lengths), sum(lengths))
        terms[segment_id] = set(_expected(of_segment))
    for group_id, turns, words, members in query_file(
        path, "SELECT id, turns, words, segments FROM search_groups"
    ):
        assert isinstance(group_id, int)
        assert isinstance(members, str)
        expected: defaultdict[int, list[int]] = defaultdict(list)
        for number, segment_id in enumerate(json.loads(members)):
            for name in terms[segment_id]:
                expected[name].append(number)
        assert _decoded(path, group_id) == expected
        of_group = [row for row in segments if row[5] == group_id]
        assert turns == sum(int(str(row[1])) for row in of_group)
        assert words == sum(int(str(row[2])) for row in of_group)
    assert is_consistent(path)
    return len(segments)


async def store_turns(store: SqliteStore, path: Path, chance: random.Random) -> dict[str, int]:
    """Stores turns of few words, of which some have two in a row; their row ids."""
    words = [f"word{number}" for number in range(60)]
    ids = []
    for _ in range(90):
        text = " ".join(chance.choices(words, k=chance.randint(1, 6)))
        ids.append((await complete_turn(store, text, chance.choice(words))).response_id)
    # A search indexes a segment's worth; how many turns wait then depends on the one before.
    await store._database.apply_deferred()
    while query_file(path, "SELECT 1 FROM search_pending LIMIT 1"):
        await search_ids(store, "word1")
        await wait_until_indexed(store)
    return {one: row_id_of_response(path, one) for one in ids}


def row_id_of_response(path: Path, response_id: str) -> int:
    key = response_key(response_id)
    ((row_id,),) = query_file(path, "SELECT row_id FROM responses WHERE id = ?", key)
    assert isinstance(row_id, int)
    return row_id


def texts_in(path: Path) -> dict[int, str]:
    """The words of all turns, by their row ids."""
    items: defaultdict[int, list[bytes]] = defaultdict(list)
    for row_id, body in query_file(
        path,
        "SELECT log.row_id, texts.body FROM log JOIN texts ON texts.id = log.text"
        " WHERE log.kind IN (1, 2) ORDER BY log.row_id",
    ):
        assert isinstance(row_id, int)
        assert isinstance(body, bytes)
        items[row_id & ~32767].append(body)
    return {row_id: searchable_text(of_turn) for row_id, of_turn in items.items()}


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]
)
async def test_index_is_as_if_an_erased_turn_had_never_been_in_it(
    tmp_path: Path, seed: int
) -> None:
    path, chance = tmp_path / "turns.db", random.Random(seed)
    async with sqlite(path) as store:
        row_ids = await store_turns(store, path, chance)
        check_index(path, texts_in(path))
        segments = {segment for (segment,) in query_file(path, "SELECT id FROM search_segments")}
        for response_id in chance.sample(sorted(row_ids), 40):
            await store.delete("", response_id)
            assert check_index(path, texts_in(path)) <= len(segments)
        living = "SELECT row_id FROM log WHERE kind = 0"
        waiting = f"SELECT count(*) FROM search_pending WHERE row_id IN ({living})"
        assert query_file(path, waiting) == [(0,)], "turns that were indexed wait again"


@pytest.mark.usefixtures("small_groups")
async def test_turn_with_an_erased_item_is_indexed_again_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        row_ids = await store_turns(store, path, random.Random(7))
        one = sorted(row_ids)[40]
        await store.stores.conversations.erase_item("", one, 0)
        pending = query_file(path, "SELECT row_id FROM search_pending")
        assert pending == [(row_ids[one],)]
        check_index(path, texts_in(path))
        await search_ids(store, "word1")
        await wait_until_indexed(store)
        check_index(path, texts_in(path))


@pytest.mark.usefixtures("small_groups")
async def test_turn_of_which_several_rows_change_leaves_the_index_once(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        row_ids = await store_turns(store, path, random.Random(8))
        row_id = sorted(row_ids.values())[41]
        await store._database.submit(
            lambda transaction: removal.index_again(
                transaction.connection, [row_id + 1, row_id + 2, row_id + 1]
            )
        )
        assert query_file(path, "SELECT row_id FROM search_pending") == [(row_id,)]
        check_index(path, texts_in(path))


@pytest.mark.usefixtures("small_groups")
async def test_turns_of_many_segments_are_left_to_the_triggers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def take_out(connection: object, segment_id: int, row_ids: object) -> None:
        taken.append(segment_id)

    path = tmp_path / "turns.db"
    async with sqlite(path) as store:
        head = None
        for number in range(20):
            head = await complete_turn(store, f"word{number} word1", parent=head)
            await search_ids(store, "word1")
        await wait_until_indexed(store)
        monkeypatch.setattr(removal, "_take_out_of_segment", take_out)
        first = query_file(path, "SELECT id FROM responses ORDER BY row_id LIMIT 1")[0][0]
        assert isinstance(first, bytes)
        await store.delete("", response_id_of(first), cascade=True)
        assert taken == []
        assert query_file(path, "SELECT count(*) FROM search_segments") == [(0,)]
        assert is_consistent(path)
