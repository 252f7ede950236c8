"""Chunks: words in drawers, found again by their hashes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antiphon.stores.full_text import MAX_COUNT
from antiphon.stores.sqlite.search.segment import (
    FULL,
    Chunk,
    Spoken,
    chunk_of,
    counts_in,
    found_in,
    hash_of,
    spots_in,
)


def counts(chunk: Chunk, word: str) -> dict[int, int]:
    """The numbers of the turns that hold a word, and how often."""
    drawer, name = hash_of(word, chunk.secret, chunk.drawers)
    return counts_in(found_in(dict(chunk.bodies).get(drawer, b"\0\0"), name))


_TEXTS = st.lists(st.lists(st.integers(0, 300).map(lambda n: f"w{n}"), max_size=40), max_size=30)


@given(_TEXTS)
def test_a_chunk_finds_what_was_put_in(texts: list[list[str]]) -> None:
    turns = [Spoken(10 * n, n / 4, " ".join(words)) for n, words in enumerate(texts)]
    chunk = chunk_of(turns)
    full = [(turn, Counter(words)) for turn, words in zip(turns, texts, strict=True) if words]
    if not full:
        assert chunk is None
        return
    assert chunk is not None
    assert chunk.places == tuple(turn.place for turn, _ in full)
    assert chunk.words == sum(held.total() for _, held in full)
    assert spots_in(chunk.spots) == [(t.place, t.created_at, h.total()) for t, h in full]
    for word in {"w0", "w7", "absent", *(word for words in texts for word in words)}:
        held = {number: held[word] for number, (_, held) in enumerate(full) if word in held}
        assert counts(chunk, word) == held


def test_the_largest_chunk() -> None:
    turns = [Spoken(n, 0.0, f"all {n} " + "often " * 300) for n in range(FULL)]
    chunk = chunk_of(turns)
    assert chunk is not None
    assert counts(chunk, "all") == dict.fromkeys(range(FULL), 1)
    assert counts(chunk, "often") == dict.fromkeys(range(FULL), MAX_COUNT)
    assert counts(chunk, "255") == {255: 1}


def test_a_turn_of_very_many_words_fills_more_drawers_not_larger_ones() -> None:
    chunk = chunk_of([Spoken(0, 0.0, " ".join(f"w{n}" for n in range(20_000)))])
    assert chunk is not None
    assert chunk.drawers == 1024
    assert max(len(body) for _, body in chunk.bodies) < 1_000
    assert counts(chunk, "w19999") == {0: 1}


def test_two_chunks_know_one_word_by_different_names() -> None:
    turn = Spoken(0, 0.0, "word")
    one, two = chunk_of([turn]), chunk_of([turn])
    assert one is not None
    assert two is not None
    assert one.secret != two.secret
    assert one.bodies != two.bodies


def test_a_name_that_seems_to_begin_inside_another_is_not_found_there() -> None:
    names = [b"aaaaab", b"bbbbbb", b"abbbbb"]
    body = b"\0\3" + b"".join(names) + b"\0\0\1" + b"\1\1" + b"\2\2" + b"\3\3\4\4"
    assert found_in(body, b"abbbbb") == b"\3\3\4\4"
    assert found_in(body, b"bbbbbb") == b"\2\2"
    assert found_in(body, b"aabbbb") == b""
    assert found_in(b"\0\0", b"aabbbb") == b""
