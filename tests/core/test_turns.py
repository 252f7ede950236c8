"""Turns: headers and ends round-trip, and their encoding is compact."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.core.turns import (
    End,
    FunctionTool,
    Header,
    Options,
    Response,
    TurnError,
    TurnRequest,
    Usage,
)

NUMBERS = st.none() | st.floats(0, 2)
TOOLS = st.builds(
    FunctionTool,
    st.text(),
    st.none() | st.text(),
    st.none() | st.dictionaries(st.text(), st.text() | st.booleans(), max_size=2),
    st.none() | st.booleans(),
)
OPTIONS = st.builds(
    Options,
    temperature=NUMBERS,
    top_p=NUMBERS,
    max_output_tokens=st.none() | st.integers(1, 2**40),
    seed=st.none() | st.integers(-(2**63), 2**63 - 1),
    stop=st.lists(st.text(), max_size=2).map(tuple),
    tools=st.lists(TOOLS, max_size=2).map(tuple),
    tool_choice=st.sampled_from(["auto", "none", "required", "function:f"]),
    parallel_tool_calls=st.booleans(),
    truncation=st.sampled_from(["auto", "disabled"]),
    metadata=st.dictionaries(st.text(), st.text(), max_size=2),
)
COUNTS = st.integers(0, 2**40)
ENDS = st.builds(
    End,
    st.sampled_from(["completed", "incomplete", "failed", "cancelled"]),
    st.floats(0, 2**40),
    st.none() | st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS),
    st.none() | st.builds(TurnError, st.text(), st.text()),
    st.none() | st.text(),
)


@settings(deadline=None)
@given(st.builds(Header, st.text(), st.none() | st.text(), OPTIONS) | ENDS)
def test_headers_and_ends_round_trip(struct: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(struct), type=type(struct)) == struct


def test_defaults_are_not_stored() -> None:
    assert msgspec.json.encode(Header("m")) in (b'{"model":"m"}', b'{"model":"m","options":{}}')
    assert msgspec.json.encode(End("completed", 1.0)) == b'{"status":"completed","ended_at":1.0}'
    assert msgspec.json.encode(Usage(3)) == b'{"input_tokens":3}'


def test_response_without_an_end_is_in_progress() -> None:
    response = Response("resp_", 0.0, Header("m"), ())
    assert response.status == "in_progress"
    ended = msgspec.structs.replace(response, end=End("cancelled", 1.0))
    assert ended.status == "cancelled"


def test_turn_request_defaults() -> None:
    request = TurnRequest(())
    assert request.store
    assert not request.stream
    assert request.tenant == ""
    assert request.options == Options()
    assert request.options.truncation == "disabled"


def test_option_defaults_are_not_shared() -> None:
    Options().metadata["key"] = "value"
    assert Options().metadata == {}
