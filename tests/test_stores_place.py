from hypothesis import given
from hypothesis import strategies as st

from antiphon.stores.sqlite.rows import (
    LAST,
    MAX_SEQ,
    MAX_THREAD,
    TURN,
    first_of_thread,
    last_of_thread,
    last_of_turn,
    place_of,
    seq_of,
    thread_of,
)

threads = st.integers(1, MAX_THREAD)
seqs = st.integers(0, MAX_SEQ)
positions = st.integers(0, LAST)


@given(threads, seqs, positions)
def test_a_place_tells_thread_and_turn(thread: int, seq: int, pos: int) -> None:
    place = place_of(thread, seq) + pos
    assert (thread_of(place), seq_of(place)) == (thread, seq)
    assert 0 < place < 1 << 63, "a place is a rowid"


@given(st.tuples(threads, seqs, positions), st.tuples(threads, seqs, positions))
def test_places_sort_by_thread_turn_and_position(
    one: tuple[int, int, int], two: tuple[int, int, int]
) -> None:
    places = [place_of(thread, seq) + pos for thread, seq, pos in (one, two)]
    assert (places[0] < places[1]) == (one < two)


@given(threads, seqs, positions)
def test_the_bounds_hold_a_turn_and_a_thread(thread: int, seq: int, pos: int) -> None:
    place = place_of(thread, seq) + pos
    assert last_of_turn(place) == place_of(thread, seq) + LAST
    assert first_of_thread(place) == place_of(thread, 0)
    assert last_of_thread(place) == place_of(thread, MAX_SEQ) + LAST
    assert last_of_turn(place) + 1 == place_of(thread, seq) + TURN
