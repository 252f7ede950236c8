"""The Responses dialect, the way there."""

from __future__ import annotations

import json
from typing import Any

import openresponses_types as spec
import pytest

from antiphon.core.turns import FunctionTool, Options
from antiphon.errors import InvalidRequestError
from antiphon.models.openai.responses import ResponsesEncoder
from antiphon.turn.protocols import ModelCall
from support.model_calls import call_with_messages

MESSAGES = b'[{"role":"user","content":"Hi"}]'
TOOL = FunctionTool("f", "Does it.", {"type": "object"}, strict=True)
#: What every request says.
ALWAYS = {
    "store": False,
    "truncation": "disabled",
    "include": ["reasoning.encrypted_content"],
}


def call(options: Options | None = None, *, stream: bool = False) -> ModelCall:
    return call_with_messages('the "model"', MESSAGES, options or Options(), stream)


def body(
    options: Options | None = None, *, stream: bool = False, name: str | None = None
) -> dict[str, Any]:
    writer = ResponsesEncoder(upstream_name=name, host="api.example")
    fields: dict[str, Any] = json.loads(writer.encode(call(options, stream=stream)))
    if "allowed_tools" not in json.dumps(fields):
        # Its own types tell a mode from a function's name by their order.
        spec.CreateResponseBody.model_validate(fields)
    return fields


def extras(options: Options) -> dict[str, Any]:
    """What a request says besides what each says."""
    fields = body(options)
    assert fields.pop("input") == [{"type": "message", "role": "user", "content": "Hi"}]
    del fields["model"]
    return {name: value for name, value in fields.items() if ALWAYS.get(name) != value}


def test_nothing_is_stored_or_shortened_there() -> None:
    for options in (Options(), Options(truncation="auto", temperature=1.0)):
        fields = body(options)
        assert {name: fields[name] for name in ALWAYS} == ALWAYS
        assert "stream" not in fields
        assert body(options, stream=True)["stream"] is True
    assert extras(Options()) == {}


def test_the_model_is_the_requested_one_or_the_upstream_name() -> None:
    assert body()["model"] == 'the "model"'
    assert body(name="other")["model"] == "other"
    assert ResponsesEncoder(upstream_name="other", host="h").origin(call()) == "h/other"
    assert ResponsesEncoder(upstream_name=None, host="h").origin(call()) == 'h/the "model"'


def test_all_options_are_passed_on() -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    assert extras(
        Options(
            temperature=0.0,
            top_p=0.5,
            max_output_tokens=70,
            frequency_penalty=0.1,
            presence_penalty=-0.1,
            seed=0,
            text_format=schema,
            verbosity="low",
            reasoning_effort="low",
            reasoning_summary="auto",
            service_tier="flex",
            prompt_cache_key="k",
            safety_identifier="s",
            user="u",
            metadata={"kept": "here"},
            max_tool_calls=3,
            truncation="auto",
        )
    ) == {
        "temperature": 0.0,
        "top_p": 0.5,
        "max_output_tokens": 70,
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "text": {"format": schema, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "service_tier": "flex",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "user": "u",
    }


def test_penalties_of_nothing_are_not_sent() -> None:
    """OpenAI's own API does not know them."""
    assert extras(Options(frequency_penalty=0.0, presence_penalty=0.0)) == {}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        (Options(include=("message.output_text.logprobs",)), {}),
        (Options(top_logprobs=2), {"top_logprobs": 2}),
        (Options(include=("message.output_text.logprobs",), top_logprobs=0), {"top_logprobs": 0}),
    ],
)
def test_logprobs_are_requested_in_this_api(options: Options, sent: Any) -> None:
    both = ["reasoning.encrypted_content", "message.output_text.logprobs"]
    assert extras(options) == {"include": both, **sent}


def test_unsupported_options_are_not_passed_on() -> None:
    """Some clients always ask for these, and have no tools that would give them."""
    requested = ("file_search_call.results", "reasoning.encrypted_content")
    assert extras(Options(include=requested, top_logprobs=0)) == {}


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ({}, None),
        ({"tool_choice": "none"}, "none"),
        ({"tool_choice": "required"}, "required"),
        ({"tool_choice": "function:f"}, {"type": "function", "name": "f"}),
        ({"allowed_tools": ("f", "g")}, None),
        ({"allowed_tools": ()}, "none"),
        ({"allowed_tools": ("f",), "tool_choice": "none"}, "none"),
        (
            {"allowed_tools": ("f",)},
            {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "f"}],
            },
        ),
        (
            {"allowed_tools": ("s__*",), "tool_choice": "required"},
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "s__h"}],
            },
        ),
    ],
)
def test_tools_and_their_choice(options: dict[str, Any], sent: Any) -> None:
    tools = [TOOL, FunctionTool("g")]
    if "s__*" in options.get("allowed_tools", ()):
        tools.append(FunctionTool("s__h"))
    fields = extras(Options(tools=tuple(tools), **options))
    assert fields["tools"][:2] == [
        {
            "type": "function",
            "name": "f",
            "description": "Does it.",
            "parameters": {"type": "object", "properties": {}},
            "strict": True,
        },
        {
            # This API would be strict where nothing is said, and strict schemas are special.
            "type": "function",
            "name": "g",
            "parameters": {"type": "object", "properties": {}},
            "strict": False,
        },
    ]
    assert fields.get("tool_choice") == sent
    assert "parallel_tool_calls" not in fields


def test_what_only_makes_sense_with_tools_needs_tools() -> None:
    assert extras(Options(tool_choice="required", parallel_tool_calls=False)) == {}
    with_tools = extras(Options(tools=(TOOL,), parallel_tool_calls=False))
    assert with_tools["parallel_tool_calls"] is False


def test_what_this_api_cannot_do_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        body(Options(stop=("x",)))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "stop")
