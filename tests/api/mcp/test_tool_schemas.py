"""Tools' schemas: one of them to the letter, all of them valid; and arguments as structs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from antiphon.api.mcp.tool_arguments import (
    SearchArguments,
    StatefulChatArguments,
    VisionChatArguments,
    check_ranges,
)
from antiphon.api.mcp.tool_schemas import decode_arguments, input_schema, replace_surrogates
from antiphon.errors import InvalidRequestError
from support.http_server import serving
from support.mcp_clients import MODES, over_http
from support.stateful_chat_schema import STATEFUL_CHAT


def test_stateful_chat_takes_what_it_is_known_to_take() -> None:
    assert input_schema(StatefulChatArguments) == STATEFUL_CHAT


@pytest.mark.parametrize("mode", MODES)
async def test_the_official_client_gets_that_schema(mode: str) -> None:
    with serving() as server:
        async with over_http(server, mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert tools["stateful_chat"].input_schema == STATEFUL_CHAT
    for tool in tools.values():
        assert tool.description
        for schema in (tool.input_schema, tool.output_schema):
            assert schema is not None
            Draft202012Validator.check_schema(schema)
            assert schema["type"] == "object"


def test_arguments_become_a_struct() -> None:
    given = {"prompt": "Hi", "temperature": 1, "chat_id": 3, "\ud800": "\ud800"}
    asked, unknown = decode_arguments(StatefulChatArguments, given)
    assert asked == StatefulChatArguments("Hi", temperature=1.0)
    assert unknown == ("chat_id", "\ud800")


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": "Hi", "max_tokens": "3"}, "max_tokens"),
        ({"prompt": "Hi", "max_tokens": True}, "max_tokens"),
        ({"prompt": "Hi", "include_reasoning": 1}, "include_reasoning"),
        ({"prompt": "Hi", "response_id": ["resp_1"]}, "response_id"),
        ({"prompt": "Hi", "model": None}, "model"),
        ({"prompt": "Hi \ud800"}, "prompt"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        decode_arguments(StatefulChatArguments, arguments)
    assert error.value.param == param
    assert f"'{param}'" in error.value.message


def test_text_in_lists_is_text() -> None:
    with pytest.raises(InvalidRequestError) as error:
        decode_arguments(VisionChatArguments, {"prompt": "Hi", "image_urls": ["https://x/\udfff"]})
    assert error.value.param == "image_urls"


def test_a_range_in_the_schema_is_enforced() -> None:
    assert input_schema(SearchArguments)["properties"]["limit"]["maximum"] == 50
    with pytest.raises(InvalidRequestError):
        decode_arguments(SearchArguments, {"query": "x", "limit": 51})


@pytest.mark.parametrize(
    ("temperature", "max_tokens"),
    [(-0.1, None), (2.1, None), (math.nan, None), (math.inf, None), (None, 0), (None, 2**31)],
)
def test_a_range_that_the_schema_keeps_to_itself_is_held(
    temperature: float | None, max_tokens: int | None
) -> None:
    check_ranges(2, 2**31 - 1)
    with pytest.raises(InvalidRequestError):
        check_ranges(temperature, max_tokens)


def test_whatever_was_sent_can_be_repeated() -> None:
    assert replace_surrogates("a\ud800b") == "a?b"
