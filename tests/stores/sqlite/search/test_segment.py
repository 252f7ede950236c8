"""Chunks: words in drawers, found again by their hashes."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from antiphon.stores.search_tokenizer import MAX_TERM_COUNT
from antiphon.stores.sqlite.search.segment import (
    MAX_SEGMENT_TURNS,
    IndexedTurn,
    IndexSegment,
    build_segment,
    decode_postings,
    decode_turn_entries,
    find_postings,
    hash_term,
)


def counts(chunk: IndexSegment, word: str) -> dict[int, int]:
    """The numbers of the turns that hold a word, and how often."""
    drawer, name = hash_term(word, chunk.secret, chunk.bucket_count)
    return decode_postings(find_postings(dict(chunk.bucket_bodies).get(drawer, b"\0\0"), name))


_TEXTS = st.lists(st.lists(st.integers(0, 300).map(lambda n: f"w{n}"), max_size=40), max_size=30)


@given(_TEXTS)
def test_a_chunk_finds_what_was_put_in(texts: list[list[str]]) -> None:
    turns = [IndexedTurn(10 * n, n / 4, " ".join(words)) for n, words in enumerate(texts)]
    chunk = build_segment(turns)
    full = [(turn, Counter(words)) for turn, words in zip(turns, texts, strict=True) if words]
    if not full:
        assert chunk is None
        return
    assert chunk is not None
    assert chunk.row_ids == tuple(turn.row_id for turn, _ in full)
    assert chunk.words == sum(held.total() for _, held in full)
    assert decode_turn_entries(chunk.turn_entries) == [
        (t.row_id, t.created_at, h.total()) for t, h in full
    ]
    for word in {"w0", "w7", "absent", *(word for words in texts for word in words)}:
        held = {number: held[word] for number, (_, held) in enumerate(full) if word in held}
        assert counts(chunk, word) == held


def test_the_largest_chunk() -> None:
    turns = [IndexedTurn(n, 0.0, f"all {n} " + "often " * 300) for n in range(MAX_SEGMENT_TURNS)]
    chunk = build_segment(turns)
    assert chunk is not None
    assert counts(chunk, "all") == dict.fromkeys(range(MAX_SEGMENT_TURNS), 1)
    assert counts(chunk, "often") == dict.fromkeys(range(MAX_SEGMENT_TURNS), MAX_TERM_COUNT)
    assert counts(chunk, "255") == {255: 1}


def test_a_turn_of_very_many_words_fills_more_drawers_not_larger_ones() -> None:
    chunk = build_segment([IndexedTurn(0, 0.0, " ".join(f"w{n}" for n in range(20_000)))])
    assert chunk is not None
    assert chunk.bucket_count == 1024
    assert max(len(body) for _, body in chunk.bucket_bodies) < 1_000
    assert counts(chunk, "w19999") == {0: 1}


def test_two_chunks_know_one_word_by_different_names() -> None:
    turn = IndexedTurn(0, 0.0, "word")
    one, two = build_segment([turn]), build_segment([turn])
    assert one is not None
    assert two is not None
    assert one.secret != two.secret
    assert one.bucket_bodies != two.bucket_bodies


def test_a_name_that_seems_to_begin_inside_another_is_not_found_there() -> None:
    names = [b"aaaaab", b"bbbbbb", b"abbbbb"]
    body = b"\0\3" + b"".join(names) + b"\0\0\1" + b"\1\1" + b"\2\2" + b"\3\3\4\4"
    assert find_postings(body, b"abbbbb") == b"\3\3\4\4"
    assert find_postings(body, b"bbbbbb") == b"\2\2"
    assert find_postings(body, b"aabbbb") == b""
    assert find_postings(b"\0\0", b"aabbbb") == b""
