"""Splitting a stream of JSON into its values: the same values as decoding it at once."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.transfer import json_splitter
from antiphon.transfer.json_splitter import BrokenJsonError, split_json

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(alphabet='ab"\\[]{},: \né'),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text('a"\\{', max_size=3), inner, max_size=4),
    ),
)


def decoded(raw: bytes) -> list[Any]:
    return [json.loads(one) for one in split_json(io.BytesIO(raw))]


@pytest.fixture(params=[4, 7, 1 << 20], ids="chunks of {} bytes".format)
def chunk_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size: int = request.param
    monkeypatch.setattr(json_splitter, "_CHUNK_BYTES", size)
    return size


@given(
    values=st.lists(_VALUES, max_size=4), indent=st.sampled_from([None, 1]), chunk=st.integers(3, 9)
)
def test_an_array_is_split_into_its_elements(
    values: list[Any], indent: int | None, chunk: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_splitter, "_CHUNK_BYTES", chunk)
        assert decoded(json.dumps(values, indent=indent).encode()) == values


@given(values=st.lists(_VALUES.filter(lambda one: not isinstance(one, list)), max_size=4))
def test_values_on_lines_are_split_at_their_ends(values: list[Any]) -> None:
    assert decoded("\n".join(map(json.dumps, values)).encode()) == values


@pytest.mark.usefixtures("chunk_bytes")
def test_what_is_whole_comes_before_what_is_broken() -> None:
    for rest in (b'{"b": ', b'{"b": "', b'"', b"[1, 2", b"}", b": 1"):
        values = split_json(io.BytesIO(b'\xef\xbb\xbf [{"a": 1}, ' + rest))
        assert json.loads(next(values)) == {"a": 1}
        with pytest.raises(BrokenJsonError):
            list(values)


def test_a_value_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_splitter, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(json_splitter, "MAX_VALUE_BYTES", 10_000)
    small = json.dumps(["x" * 3000] * 9).encode()
    assert len(decoded(small)) == 9
    with pytest.raises(BrokenJsonError, match="larger"):
        decoded(json.dumps(["x" * 30_000]).encode())
