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
    encode_header,
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


def rows_of(place: int, key: bytes = KEY, end: End | None = DONE) -> list[Row]:
    rows = [
        (place, TOP, encode_header(key, 12.5, HEADER)),
        (place + 1, INPUT, user("Hi.")),
        (place + 2, OUTPUT, assistant("Hello.")),
    ]
    return rows if end is None else [*rows, (place + END_POSITION, END, encode_end(end))]


def test_a_header_comes_back() -> None:
    body = encode_header(KEY, 1_700_000_000.123456, Header("m"))
    top = decode_header(body)
    assert (top.key, top.created_at, top.header) == (KEY, 1_700_000_000.123456, Header("m"))
    assert response_id_in(body) == ID
    assert response_id_in(KEY) == ID


def test_rows_become_turns() -> None:
    first, second = decode_turns(
        rows_of(row_id_of(3, 0)) + rows_of(row_id_of(3, 1), OTHER, end=None), None, no_blobs
    )
    assert (first.response_id, first.created_at, first.header) == (ID, 12.5, HEADER)
    assert (first.input, first.output, first.end) == ((user("Hi."),), (assistant("Hello."),), DONE)
    assert first.previous_response_id is None
    assert second.end is None
    assert second.previous_response_id == ID


def test_a_tombstone_is_no_turn_but_still_the_turn_before() -> None:
    rows: list[Row] = [(row_id_of(1, 4), TOMBSTONE, OTHER), *rows_of(row_id_of(1, 5))]
    (turn,) = decode_turns(rows, "resp_before", no_blobs)
    assert turn.previous_response_id == "resp_" + OTHER.hex()


def test_the_turn_before_may_lie_elsewhere() -> None:
    (turn,) = decode_turns(rows_of(row_id_of(2, 7)), "resp_before", no_blobs)
    assert turn.previous_response_id == "resp_before"
    assert decode_turns([], None, no_blobs) == []


def test_a_turns_blobs_lie_between_its_header_and_its_items() -> None:
    kept = {7: Blob("aa", b"seven"), 2**40: Blob("bb", b"large")}
    (top, *items) = rows_of(row_id_of(1, 0))
    uses = [
        (1, BLOB_USE, encode_blob_use(7)),
        (2, BLOB_USE, encode_blob_use(2**40)),
        (3, BLOB_USE, encode_blob_use(99)),
    ]
    rows = [top, *[(row_id_of(1, 0) + pos, kind, body) for pos, kind, body in uses]]
    rows += [(place + 3, kind, body) for place, kind, body in items[:-1]] + items[-1:]
    (turn,) = decode_turns(rows, None, kept.get)
    assert turn.blobs == {"aa": b"seven", "bb": b"large"}
    assert (turn.input, turn.output) == ((user("Hi."),), (assistant("Hello."),))
    assert turn.end == DONE
    assert decode_blob_use(encode_blob_use(2**62)) == 2**62
