"""Index segments: words in buckets, found by their hashes."""

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


def turn_counts(segment: IndexSegment, word: str) -> dict[int, int]:
    """The numbers of the turns with a word, and how often each has it."""
    bucket, name = hash_term(word, segment.secret, segment.bucket_count)
    return decode_postings(find_postings(dict(segment.bucket_bodies).get(bucket, b"\0\0"), name))


_TEXTS = st.lists(st.lists(st.integers(0, 300).map(lambda n: f"w{n}"), max_size=40), max_size=30)


@given(_TEXTS)
def test_segment_finds_every_indexed_word(texts: list[list[str]]) -> None:
    turns = [IndexedTurn(10 * n, n / 4, " ".join(words)) for n, words in enumerate(texts)]
    segment = build_segment(turns)
    full = [(turn, Counter(words)) for turn, words in zip(turns, texts, strict=True) if words]
    if not full:
        assert segment is None
        return
    assert segment is not None
    assert segment.row_ids == tuple(turn.row_id for turn, _ in full)
    assert segment.words == sum(term_counts.total() for _, term_counts in full)
    assert decode_turn_entries(segment.turn_entries) == [
        (t.row_id, t.created_at, h.total()) for t, h in full
    ]
    for word in {"w0", "w7", "absent", *(word for words in texts for word in words)}:
        term_counts = {
            number: term_counts[word]
            for number, (_, term_counts) in enumerate(full)
            if word in term_counts
        }
        assert turn_counts(segment, word) == term_counts


def test_largest_segment_finds_words_and_caps_counts() -> None:
    turns = [IndexedTurn(n, 0.0, f"all {n} " + "often " * 300) for n in range(MAX_SEGMENT_TURNS)]
    segment = build_segment(turns)
    assert segment is not None
    assert turn_counts(segment, "all") == dict.fromkeys(range(MAX_SEGMENT_TURNS), 1)
    assert turn_counts(segment, "often") == dict.fromkeys(range(MAX_SEGMENT_TURNS), MAX_TERM_COUNT)
    assert turn_counts(segment, "255") == {255: 1}


def test_turn_with_many_words_fills_more_buckets() -> None:
    segment = build_segment([IndexedTurn(0, 0.0, " ".join(f"w{n}" for n in range(20_000)))])
    assert segment is not None
    assert segment.bucket_count == 1024
    assert max(len(body) for _, body in segment.bucket_bodies) < 1_000
    assert turn_counts(segment, "w19999") == {0: 1}


def test_two_segments_hash_a_word_differently() -> None:
    turn = IndexedTurn(0, 0.0, "word")
    one, two = build_segment([turn]), build_segment([turn])
    assert one is not None
    assert two is not None
    assert one.secret != two.secret
    assert one.bucket_bodies != two.bucket_bodies


def test_term_hash_is_matched_only_at_entry_boundaries() -> None:
    names = [b"aaaaab", b"bbbbbb", b"abbbbb"]
    body = b"\0\3" + b"".join(names) + b"\0\0\1" + b"\1\1" + b"\2\2" + b"\3\3\4\4"
    assert find_postings(body, b"abbbbb") == b"\3\3\4\4"
    assert find_postings(body, b"bbbbbb") == b"\2\2"
    assert find_postings(body, b"aabbbb") == b""
    assert find_postings(b"\0\0", b"aabbbb") == b""
