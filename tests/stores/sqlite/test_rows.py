from antiphon.core.images import Blob
from antiphon.core.turns import End, Header
from antiphon.stores.sqlite.rows import (
    BLOB_USE,
    END,
    END_POSITION,
    INPUT,
    OUTPUT,
    TOMBSTONE,
    Row,
    decode_blob_use,
    decode_header,
    decode_turns,
    encode_blob_use,
    encode_end,
    header_row,
    response_id_in,
    row_id_of,
)
from antiphon.stores.sqlite.rows import (
    HEADER as TOP,
)
from support.store_turns import DONE, HEADER, assistant, user

KEY = bytes(range(16))
ID = "resp_" + KEY.hex()
OTHER = bytes(16)


def no_blobs(number: int) -> Blob | None:
    raise AssertionError("these turns use no blobs")


def rows_of(row_id: int, key: bytes = KEY, end: End | None = DONE) -> list[Row]:
    rows: list[Row] = [
        header_row(row_id, key, 12.5, HEADER),
        (row_id + 1, INPUT, None, user("Hi.")),
        (row_id + 2, OUTPUT, None, assistant("Hello.")),
    ]
    return rows if end is None else [*rows, (row_id + END_POSITION, END, None, encode_end(end))]


def test_header_row_round_trips() -> None:
    row_id, kind, key, text = header_row(9, KEY, 1_700_000_000.123456, Header("m"))
    assert (row_id, kind) == (9, TOP)
    assert key is not None
    assert text is not None
    top = decode_header(key, text)
    assert (top.key, top.created_at, top.header) == (KEY, 1_700_000_000.123456, Header("m"))
    assert response_id_in(key) == ID
    assert response_id_in(KEY) == ID


def test_rows_decode_to_turns() -> None:
    first, second = decode_turns(
        rows_of(row_id_of(3, 0)) + rows_of(row_id_of(3, 1), OTHER, end=None), None, no_blobs
    )
    assert (first.response_id, first.created_at, first.header) == (ID, 12.5, HEADER)
    assert (first.input, first.output, first.end) == ((user("Hi."),), (assistant("Hello."),), DONE)
    assert first.previous_response_id is None
    assert second.end is None
    assert second.previous_response_id == ID


def test_tombstone_is_no_turn_but_is_the_previous_response() -> None:
    rows: list[Row] = [(row_id_of(1, 4), TOMBSTONE, OTHER, None), *rows_of(row_id_of(1, 5))]
    (turn,) = decode_turns(rows, "resp_before", no_blobs)
    assert turn.previous_response_id == "resp_" + OTHER.hex()


def test_previous_response_can_be_in_another_thread() -> None:
    (turn,) = decode_turns(rows_of(row_id_of(2, 7)), "resp_before", no_blobs)
    assert turn.previous_response_id == "resp_before"
    assert decode_turns([], None, no_blobs) == []


def test_blob_rows_between_header_and_items_are_decoded() -> None:
    blobs = {7: Blob("aa", b"seven"), 2**40: Blob("bb", b"large")}
    (top, *items) = rows_of(row_id_of(1, 0))
    uses = [
        (1, BLOB_USE, encode_blob_use(7)),
        (2, BLOB_USE, encode_blob_use(2**40)),
        (3, BLOB_USE, encode_blob_use(99)),
    ]
    rows: list[Row] = [top, *[(row_id_of(1, 0) + pos, kind, key, None) for pos, kind, key in uses]]
    rows += [(row_id + 3, kind, key, text) for row_id, kind, key, text in items[:-1]] + items[-1:]
    (turn,) = decode_turns(rows, None, blobs.get)
    assert turn.blobs == {"aa": b"seven", "bb": b"large"}
    assert (turn.input, turn.output) == ((user("Hi."),), (assistant("Hello."),))
    assert turn.end == DONE
    assert decode_blob_use(encode_blob_use(2**62)) == 2**62
