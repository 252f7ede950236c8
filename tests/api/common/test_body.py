"""Bodies: how they are read, and what is said of those that cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import msgspec
import pytest
from starlette.types import Message, Receive

from antiphon.api.common.body import (
    DECODE_ERRORS,
    MAX_BODY,
    MAX_DEPTH,
    ClientDisconnected,
    check_depth,
    drop_nulls,
    invalid_value_error,
    read_body,
)
from antiphon.errors import BodyTooLargeError, InvalidRequestError

MEBIBYTE = bytes(1024 * 1024)


def saying(messages: Iterable[Message]) -> Receive:
    """An ASGI ``receive`` that gives these messages, and no others."""
    given = iter(messages)

    async def receive() -> Message:
        return next(given)

    return receive


def pieces(chunks: Iterable[bytes]) -> list[Message]:
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    return [*messages, {"type": "http.request", "body": b"", "more_body": False}]


def test_a_body_in_one_piece() -> None:
    assert asyncio.run(read_body(saying([{"type": "http.request", "body": b"{}"}]))) == b"{}"


def test_a_body_in_many_pieces() -> None:
    assert asyncio.run(read_body(saying(pieces([b'{"a', b"", b'":1}'])))) == b'{"a":1}'


def test_no_body_at_all() -> None:
    assert asyncio.run(read_body(saying([{"type": "http.request"}]))) == b""


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_client_that_hangs_up(before: int) -> None:
    messages = [*pieces([b"x"] * before)[:before], {"type": "http.disconnect"}]
    with pytest.raises(ClientDisconnected):
        asyncio.run(read_body(saying(messages)))


def test_the_largest_body() -> None:
    whole = MEBIBYTE * (MAX_BODY // len(MEBIBYTE))
    assert len(asyncio.run(read_body(saying(pieces([whole]))))) == MAX_BODY


def test_a_body_one_byte_too_large() -> None:
    whole = MEBIBYTE * (MAX_BODY // len(MEBIBYTE))
    with pytest.raises(BodyTooLargeError) as caught:
        asyncio.run(read_body(saying([{"type": "http.request", "body": whole + b"x"}])))
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")
    assert "32 MiB" in caught.value.message


def test_a_large_body_is_read_to_its_end() -> None:
    messages = pieces([MEBIBYTE] * 50)
    heard = 0

    async def receive() -> Message:
        nonlocal heard
        heard += 1
        return messages[heard - 1]

    with pytest.raises(BodyTooLargeError):
        asyncio.run(read_body(receive))
    assert heard == len(messages)


def test_a_body_without_end_is_not_read_to_its_end() -> None:
    heard = 0

    async def receive() -> Message:
        nonlocal heard
        heard += 1
        assert heard < 1000
        return {"type": "http.request", "body": MEBIBYTE, "more_body": True}

    with pytest.raises(BodyTooLargeError):
        asyncio.run(read_body(receive))
    assert heard * len(MEBIBYTE) > MAX_BODY


class Inner(msgspec.Struct):
    name: str


class Outer(msgspec.Struct):
    one: int
    many: list[Inner] = []
    short: dict[Annotated[str, msgspec.Meta(max_length=3)], int] = {}


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"one":NaN}', "invalid_json", None),
        (b'{"one":1} and more', "invalid_json", None),
        (b'{"one":1,"many":[{"name":"\xff"}]}', "invalid_json", None),
        (rb'{"one":1,"many":[{"name":"\udc00"}]}', "invalid_json", None),
        (b'{"x":' * 100_000, "invalid_json", None),
        (b"[]", "invalid_type", None),
        (b"null", "invalid_type", None),
        (b"{}", "invalid_value", "one"),
        (b'{"one":"1"}', "invalid_type", "one"),
        (b'{"one":1.5}', "invalid_type", "one"),
        (b'{"one":1,"many":[{"name":"a"},{"name":2}]}', "invalid_type", "many[1].name"),
        (b'{"one":1,"many":[{}]}', "invalid_value", "many[0].name"),
    ],
)
def test_what_is_wrong_and_where(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(DECODE_ERRORS) as caught:
        msgspec.json.decode(body, type=Outer)
    error = invalid_value_error(caught.value)
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert (error.code, error.param) == (code, param)
    assert error.message
    assert param is None or f"'{param}'" in error.message
    assert " - at `" not in error.message


def test_a_part_of_the_body_names_its_place() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert({"name": 1}, Inner)
    assert invalid_value_error(caught.value, "input[3]").param == "input[3].name"
    assert invalid_value_error(RecursionError(), "input[3]").param == "input[3]"


def test_a_key_at_fault_is_found_in_its_object() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(b'{"one":1,"short":{"long":1}}', type=Outer)
    error = invalid_value_error(caught.value)
    assert error.param == "short"
    reason = "it has to be a string of at most 3 characters"
    assert error.message == f"Invalid value for 'short': {reason}."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "The body is not valid JSON: it is empty, or ends too early."),
        (b"[]", "Invalid body: it has to be an object, not an array."),
        (b"{}", "'one' is required."),
        (b'{"one":"1"}', "Invalid value for 'one': it has to be an integer, not a string."),
        (b'{"one":true}', "Invalid value for 'one': it has to be an integer, not a boolean."),
        (b'{"one":1,"many":7}', "Invalid value for 'many': it has to be an array, not an integer."),
    ],
)
def test_errors_are_in_words_of_json(body: bytes, message: str) -> None:
    with pytest.raises(DECODE_ERRORS) as caught:
        msgspec.json.decode(body, type=Outer)
    assert invalid_value_error(caught.value).message == message


class Limits(msgspec.Struct):
    number: Annotated[float, msgspec.Meta(le=2)] | None = None
    name: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] | None = None
    role: Literal["user", "tool"] | None = None


def test_limits_and_values_are_named() -> None:
    for body, reason in {
        b'{"number":3}': "it has to be a number of at most 2.0",
        b'{"name":"A"}': "it has to be a string that matches ^[a-z]+$",
        b'{"name":[]}': "it has to be a string or null, not an array",
        b'{"role":"critic"}': "'critic' is not one of its values",
    }.items():
        with pytest.raises(msgspec.ValidationError) as caught:
            msgspec.json.decode(body, type=Limits)
        assert invalid_value_error(caught.value).message.endswith(f": {reason}.")


def nested(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def test_depth() -> None:
    check_depth(nested(MAX_DEPTH - 1), "tools")
    check_depth({"wide": [{"a": [1]}] * 1000}, "tools")
    check_depth(None, "tools")
    with pytest.raises(InvalidRequestError) as caught:
        check_depth(nested(MAX_DEPTH), "tools")
    assert (caught.value.code, caught.value.param) == ("invalid_json", "tools")


def test_what_is_null_is_not_there() -> None:
    assert drop_nulls({"a": None, "b": 0, "c": "", "d": []}) == {"b": 0, "c": "", "d": []}
