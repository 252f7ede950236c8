"""Encoded tools: remembered ones are those that were given."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from antiphon.core.turns import FunctionTool
from antiphon.models.openai.tool_encoding import ToolEncoder

TOOLS = st.builds(
    FunctionTool,
    name=st.sampled_from(["a", "b"]),
    description=st.sampled_from([None, "words", "x" * 70_000]),
    strict=st.sampled_from([None, True, False]),
)
HOSTED = st.dictionaries(st.sampled_from(["type", "size"]), st.integers(0, 3), max_size=2)


def describe(tool: FunctionTool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "strict": tool.strict}


@given(st.lists(st.tuples(st.lists(TOOLS, max_size=3), st.lists(HOSTED, max_size=2)), max_size=8))
def test_each_list_of_tools_is_encoded_as_it_is(
    requests: list[tuple[list[FunctionTool], list[dict[str, int]]]],
) -> None:
    encoder = ToolEncoder(describe)
    for tools, hosted in [*requests, *requests]:
        encoded = encoder.encode(tuple(tools), hosted)
        expected = [*map(describe, tools), *hosted]
        assert ([] if encoded is None else msgspec.json.decode(encoded)) == expected


def test_the_least_recently_used_tools_are_forgotten() -> None:
    described: list[str] = []

    def note(tool: FunctionTool) -> dict[str, Any]:
        described.append(tool.name)
        return describe(tool)

    encoder = ToolEncoder(note)
    for number in [*range(64), 0, 64, 0, 1]:
        encoder.encode((FunctionTool(str(number)),))
    assert described == [*map(str, range(65)), "1"]
