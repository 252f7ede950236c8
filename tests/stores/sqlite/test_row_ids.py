from hypothesis import given
from hypothesis import strategies as st

from antiphon.stores.sqlite.rows import (
    END_POSITION,
    MAX_SEQ,
    MAX_THREAD,
    TURN_STRIDE,
    first_of_thread,
    last_of_thread,
    last_of_turn,
    row_id_of,
    seq_of,
    thread_of,
)

threads = st.integers(1, MAX_THREAD)
seqs = st.integers(0, MAX_SEQ)
positions = st.integers(0, END_POSITION)


@given(threads, seqs, positions)
def test_a_place_tells_thread_and_turn(thread: int, seq: int, pos: int) -> None:
    place = row_id_of(thread, seq) + pos
    assert (thread_of(place), seq_of(place)) == (thread, seq)
    assert 0 < place < 1 << 63, "a place is a rowid"


@given(st.tuples(threads, seqs, positions), st.tuples(threads, seqs, positions))
def test_places_sort_by_thread_turn_and_position(
    one: tuple[int, int, int], two: tuple[int, int, int]
) -> None:
    places = [row_id_of(thread, seq) + pos for thread, seq, pos in (one, two)]
    assert (places[0] < places[1]) == (one < two)


@given(threads, seqs, positions)
def test_the_bounds_hold_a_turn_and_a_thread(thread: int, seq: int, pos: int) -> None:
    place = row_id_of(thread, seq) + pos
    assert last_of_turn(place) == row_id_of(thread, seq) + END_POSITION
    assert first_of_thread(place) == row_id_of(thread, 0)
    assert last_of_thread(place) == row_id_of(thread, MAX_SEQ) + END_POSITION
    assert last_of_turn(place) + 1 == row_id_of(thread, seq) + TURN_STRIDE
