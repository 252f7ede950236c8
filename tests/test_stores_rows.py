from antiphon.core.turns import End, Header
from antiphon.stores.place import LAST, place_of
from antiphon.stores.rows import (
    END,
    ERASED,
    INPUT,
    OUTPUT,
    Row,
    decode_header,
    encode_end,
    encode_header,
    id_in,
    turns_of,
)
from antiphon.stores.rows import (
    HEADER as TOP,
)
from stores_kit import DONE, HEADER, assistant, user

KEY = bytes(range(16))
ID = "resp_" + KEY.hex()
OTHER = bytes(16)


def rows_of(place: int, key: bytes = KEY, end: End | None = DONE) -> list[Row]:
    rows = [
        (place, TOP, encode_header(key, 12.5, HEADER)),
        (place + 1, INPUT, user("Hi.")),
        (place + 2, OUTPUT, assistant("Hello.")),
    ]
    return rows if end is None else [*rows, (place + LAST, END, encode_end(end))]


def test_a_header_comes_back() -> None:
    body = encode_header(KEY, 1_700_000_000.123456, Header("m"))
    top = decode_header(body)
    assert (top.key, top.created_at, top.header) == (KEY, 1_700_000_000.123456, Header("m"))
    assert id_in(body) == ID
    assert id_in(KEY) == ID


def test_rows_become_turns() -> None:
    first, second = turns_of(
        rows_of(place_of(3, 0)) + rows_of(place_of(3, 1), OTHER, end=None), None
    )
    assert (first.response_id, first.created_at, first.header) == (ID, 12.5, HEADER)
    assert (first.input, first.output, first.end) == ((user("Hi."),), (assistant("Hello."),), DONE)
    assert first.previous_response_id is None
    assert second.end is None
    assert second.previous_response_id == ID


def test_a_tombstone_is_no_turn_but_still_the_turn_before() -> None:
    rows: list[Row] = [(place_of(1, 4), ERASED, OTHER), *rows_of(place_of(1, 5))]
    (turn,) = turns_of(rows, "resp_before")
    assert turn.previous_response_id == "resp_" + OTHER.hex()


def test_the_turn_before_may_lie_elsewhere() -> None:
    (turn,) = turns_of(rows_of(place_of(2, 7)), "resp_before")
    assert turn.previous_response_id == "resp_before"
    assert turns_of([], None) == []
