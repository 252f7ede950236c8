"""JSON mutations: a value of JSON with one place changed to a value of any other type."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, TypeAlias

from hypothesis import strategies as st

from support.scenario import Json

Path: TypeAlias = tuple[str | int, ...]

#: What stands in a place where something else is expected.
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "x", "0", "null", [], {}, [None], [[]], [{}], {"a": {}}, [1, "x"]]),
)


def paths(value: Any, before: Path = ()) -> Iterator[Path]:
    """The places of all values in a value of JSON."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, one in items:
        yield (*before, key)
        yield from paths(one, (*before, key))


def mutated(value: Json, path: Path, other: Any) -> Json:
    """The value with ``other`` in a place."""
    value = copy.deepcopy(value)
    place: Any = value
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = other
    return value
