"""Index segments: words in buckets, found by their hashes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.items import Message, encode_item
from antiphon.stores.search_tokenizer import MAX_TERM_COUNT
from antiphon.stores.sqlite.search.segment import (
    MAX_SEGMENT_TURNS,
    SECRET_BYTES,
    IndexedTurn,
    IndexSegment,
    build_segment,
    decode_postings,
    decode_turn_entries,
    encode_buckets,
    encrypt,
    find_postings,
    hash_term,
    hashes_in,
)


def turn_of(row_id: int, created_at: float, text: str) -> IndexedTurn:
    return IndexedTurn(row_id, created_at, (encode_item(Message("user", text)),))


def turn_counts(segment: IndexSegment, word: str) -> Mapping[int, int]:
    """The numbers of the turns with a word, and how often each has it."""
    name = hash_term(word)
    number = name & segment.bucket_count - 1
    body = dict(segment.bucket_bodies).get(number)
    if body is None:
        return {}
    return decode_postings(find_postings(body, segment.secret, number, name))


_TEXTS = st.lists(st.lists(st.integers(0, 300).map(lambda n: f"w{n}"), max_size=40), max_size=30)


@given(_TEXTS)
def test_segment_finds_every_indexed_word(texts: list[list[str]]) -> None:
    turns = [turn_of(10 * n, n / 4, " ".join(words)) for n, words in enumerate(texts)]
    segment = build_segment(turns)
    full = [(turn, Counter(words)) for turn, words in zip(turns, texts, strict=True) if words]
    if not full:
        assert segment is None
        return
    assert segment is not None
    assert segment.row_ids == tuple(turn.row_id for turn, _ in full)
    assert segment.words == sum(term_counts.total() for _, term_counts in full)
    assert decode_turn_entries(segment.turn_entries) == [(t.created_at, h.total()) for t, h in full]
    for word in {"w0", "w7", "absent", *(word for words in texts for word in words)}:
        term_counts = {
            number: term_counts[word]
            for number, (_, term_counts) in enumerate(full)
            if word in term_counts
        }
        assert turn_counts(segment, word) == term_counts


def test_largest_segment_finds_words_and_caps_counts() -> None:
    turns = [turn_of(n, 0.0, f"all {n} " + "often " * 300) for n in range(MAX_SEGMENT_TURNS)]
    segment = build_segment(turns)
    assert segment is not None
    assert turn_counts(segment, "all") == dict.fromkeys(range(MAX_SEGMENT_TURNS), 1)
    assert turn_counts(segment, "often") == dict.fromkeys(range(MAX_SEGMENT_TURNS), MAX_TERM_COUNT)
    assert turn_counts(segment, "255") == {255: 1}


def test_turn_with_many_words_fills_more_buckets() -> None:
    segment = build_segment([turn_of(0, 0.0, " ".join(f"w{n}" for n in range(20_000)))])
    assert segment is not None
    assert segment.bucket_count == 256
    assert max(len(body) for _, body in segment.bucket_bodies) < 1_000
    assert turn_counts(segment, "w19999") == {0: 1}


def test_two_segments_encrypt_a_word_differently() -> None:
    turn = turn_of(0, 0.0, "word")
    one, two = build_segment([turn]), build_segment([turn])
    assert one is not None
    assert two is not None
    assert one.secret != two.secret
    assert one.bucket_bodies != two.bucket_bodies


def test_term_hash_is_matched_only_at_entry_boundaries() -> None:
    names = {text: int.from_bytes(text, "little") for text in (b"aaab", b"bbbb", b"abbb", b"aabb")}
    secret = bytes(SECRET_BYTES)
    postings = {names[b"aaab"]: b"\1", names[b"bbbb"]: b"\2", names[b"abbb"]: b"\3\4"}
    count, ((number, body),) = encode_buckets(postings, secret)
    assert (count, number) == (1, 0)
    found = {text: find_postings(body, secret, number, name) for text, name in names.items()}
    assert found == {b"aaab": b"\1", b"bbbb": b"\2", b"abbb": b"\3\4", b"aabb": b""}
    assert hashes_in(body, secret, number) == tuple(postings)


def test_terms_with_the_same_hash_count_as_one() -> None:
    # Two of the pairs of words that CRC-32 cannot tell apart.
    assert hash_term("plumless") == hash_term("buckeroo")
    segment = build_segment([turn_of(0, 0.0, "plumless"), turn_of(1, 0.0, "buckeroo buckeroo")])
    assert segment is not None
    assert turn_counts(segment, "plumless") == {0: 1, 1: 2}


@given(st.binary(max_size=300), st.binary(min_size=16, max_size=16), st.integers(0, 65_535))
def test_buckets_are_encrypted_under_their_secret_and_number(
    body: bytes, secret: bytes, number: int
) -> None:
    encrypted = encrypt(body, secret, number)
    assert encrypt(encrypted, secret, number) == body
    if len(body) > 16:
        assert encrypted != body
        assert encrypted != encrypt(body, secret, number ^ 1)
        assert encrypted != encrypt(body, secret[:-1] + bytes([secret[-1] ^ 1]), number)
