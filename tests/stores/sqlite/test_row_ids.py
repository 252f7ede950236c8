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
def test_row_id_encodes_thread_and_sequence_number(thread: int, seq: int, pos: int) -> None:
    row_id = row_id_of(thread, seq) + pos
    assert (thread_of(row_id), seq_of(row_id)) == (thread, seq)
    assert 0 < row_id < 1 << 63, "it fits a SQLite rowid"


@given(st.tuples(threads, seqs, positions), st.tuples(threads, seqs, positions))
def test_row_ids_sort_by_thread_turn_and_position(
    one: tuple[int, int, int], two: tuple[int, int, int]
) -> None:
    row_ids = [row_id_of(thread, seq) + pos for thread, seq, pos in (one, two)]
    assert (row_ids[0] < row_ids[1]) == (one < two)


@given(threads, seqs, positions)
def test_row_id_bounds_enclose_a_turn_and_a_thread(thread: int, seq: int, pos: int) -> None:
    row_id = row_id_of(thread, seq) + pos
    assert last_of_turn(row_id) == row_id_of(thread, seq) + END_POSITION
    assert first_of_thread(row_id) == row_id_of(thread, 0)
    assert last_of_thread(row_id) == row_id_of(thread, MAX_SEQ) + END_POSITION
    assert last_of_turn(row_id) + 1 == row_id_of(thread, seq) + TURN_STRIDE
