"""The piece cache: right whatever is forgotten, and no more made than need be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from antiphon.models.piece_cache import PieceCache

PIECES = st.lists(st.binary(max_size=3), max_size=5)


@given(st.lists(st.tuples(PIECES, st.integers(0, 2)), max_size=20), st.integers(0, 5000))
def test_the_forms_are_those_of_the_pieces(calls: list[tuple[list[bytes], int]], size: int) -> None:
    cache = PieceCache[int, tuple[bytes, int]](lambda piece, key: (piece, key), lambda _: 10, size)
    for pieces, key in calls:
        assert cache.get_all(pieces, key) == [(piece, key) for piece in pieces]
        for piece in pieces:
            assert cache.get(piece, key) == (piece, key)


def test_a_growing_context_makes_each_form_once() -> None:
    made: list[bytes] = []

    def make(piece: bytes, key: str) -> tuple[bytes]:
        made.append(piece)
        return (piece,)

    cache = PieceCache(make, lambda form: len(form[0]))
    pieces = [b"%d" % number for number in range(50)]
    for end in range(len(pieces)):
        cache.get_all(pieces[: end + 1], "key")
    assert made == pieces


def test_what_is_not_used_is_forgotten_and_what_is_used_is_not() -> None:
    made: list[bytes] = []

    def make(piece: bytes, key: str) -> tuple[bytes]:
        made.append(piece)
        return (piece,)

    cache = PieceCache(make, lambda _: 600, capacity=10_000)
    for number in range(50):
        cache.get_all([b"used", b"%d" % number], "key")
    assert made.count(b"used") == 1
    cache.get(b"0", "key")
    assert made.count(b"0") == 2
