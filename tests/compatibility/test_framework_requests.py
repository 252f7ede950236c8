"""Requests as frameworks, SDKs and chat programs write them: what the upstream gets of each."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.scenario import LOOKUP, Json, Scenario, answer_hello, nested

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
URL = "https://a.example/b.png"
SCHEMA: Json = {"type": "object", "properties": {"c": {"type": "integer"}}}
HI: Json = {"role": "user", "content": "Hi"}
CALLED: Json = {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": "{}"}}
ANSWERED: Json = {"role": "tool", "tool_call_id": "c1", "content": "one"}
CALL: Json = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "c1", "output": "one"}


def assistant(**fields: Any) -> Json:
    return {"role": "assistant", "content": None, **fields}


#: Fields of a request to chat completions beside its messages, and what the upstream gets of them.
CHAT_FIELDS: dict[str, tuple[Json, Json]] = {
    "langchain-nulls": (
        {"n": 1, "stop": None, "parallel_tool_calls": None, "functions": None, "logit_bias": None},
        {},
    ),
    "langchain-usage-without-stream": ({"stream_options": {"include_usage": True}}, {}),
    "langchain-js-no-limit": ({"max_tokens": -1}, {"max_tokens": None}),
    "lm-studio-no-limit": ({"max_completion_tokens": -1}, {"max_tokens": None}),
    "ai-sdk": ({"max_completion_tokens": 50, "metadata": {}, "store": False}, {}),
    "ai-sdk-verbosity": ({"verbosity": "low"}, {"verbosity": "low"}),
    "litellm-user": ({"user": "u-1", "drop_params": True}, {}),
    "spring-ai-nulls": ({"modalities": None, "audio": None, "prediction": None, "seed": None}, {}),
    "dotnet-modalities": ({"modalities": ["text"], "stop": [], "service_tier": "auto"}, {}),
    "java-numbers": ({"temperature": 1, "top_p": 1, "seed": 42, "n": 1}, {"temperature": 1}),
    "go-empty": ({"user": "", "functions": [], "tools": [], "stop": []}, {}),
    "text-numbers": ({"temperature": "0.7", "max_tokens": "100"}, {"temperature": 0.7}),
    "stop-empty": ({"stop": ""}, {}),
    "stop-one": ({"stop": "END"}, {"stop": ["END"]}),
    "n8n-text-format": ({"response_format": {"type": "text"}}, {}),
    "dify-none": ({"tools": [], "tool_choice": "none"}, {}),
    "cline-thinking": (
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    ),
    "librechat-openrouter": (
        {"include_reasoning": True, "plugins": [], "transforms": ["middle-out"]},
        {"include_reasoning": True, "transforms": ["middle-out"]},
    ),
    "open-webui": (
        {"session_id": "s", "chat_id": "c", "features": {}, "background_tasks": {}},
        {},
    ),
    "mistral-client": (
        {"safe_prompt": False, "random_seed": 7},
        {"safe_prompt": False, "random_seed": 7},
    ),
    "vllm-guided": (
        {"guided_json": SCHEMA, "min_tokens": 3},
        {"guided_json": SCHEMA, "min_tokens": 3},
    ),
    "qwen-search": ({"enable_search": True}, {"enable_search": True}),
    "doubao-thinking": ({"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
    "groq-format": ({"reasoning_format": "parsed"}, {"reasoning_format": "parsed"}),
    "perplexity-search": (
        {"search_domain_filter": ["a.example"], "return_images": False},
        {"search_domain_filter": ["a.example"]},
    ),
    "llama.cpp-cache": ({"cache_prompt": True, "id_slot": 0}, {"cache_prompt": True}),
    "format-without-name": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {},
    ),
    "format-flat": (
        {"response_format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        {},
    ),
    "format-object": ({"response_format": {"type": "json_object"}}, {}),
}
#: Tools and choices of tools of either API, and the choice that the upstream gets.
TOOLS: dict[str, tuple[Any, Any, Any]] = {
    "nested": ([nested(LOOKUP)], "auto", None),
    "flat": ([LOOKUP], None, None),
    "without-type": ([{"name": "lookup", "parameters": SCHEMA}], "auto", None),
    "nested-without-type": ([{"function": {"name": "lookup", "parameters": SCHEMA}}], None, None),
    "anthropic": ([{"name": "lookup", "description": "d", "input_schema": SCHEMA}], None, None),
    "mcp": ([{"name": "lookup", "inputSchema": SCHEMA}], None, None),
    "kernel-empty": (
        [nested({"type": "function", "name": "lookup", "parameters": {}})],
        None,
        None,
    ),
    "parameters-null": ([nested({**LOOKUP, "parameters": None})], None, None),
    "strict-null": ([nested({**LOOKUP, "strict": None, "description": None})], None, None),
    "schema-named": (
        [nested({**LOOKUP, "parameters": {**SCHEMA, "$schema": "http://json-schema.org/x"}})],
        None,
        None,
    ),
    "null-among-tools": ([None, nested(LOOKUP)], None, None),
    "choice-object-auto": ([LOOKUP], {"type": "auto"}, None),
    "choice-object-none": ([LOOKUP], {"type": "none"}, "none"),
    "choice-any": ([LOOKUP], "any", "required"),
    "choice-object-any": ([LOOKUP], {"type": "any"}, "required"),
    "choice-tool": (
        [LOOKUP],
        {"type": "tool", "name": "lookup"},
        {"type": "function", "function": {"name": "lookup"}},
    ),
    "choice-by-name": (
        [LOOKUP],
        {"function": {"name": "lookup"}},
        {"type": "function", "function": {"name": "lookup"}},
    ),
    "choice-empty": ([LOOKUP], "", None),
}
#: Histories, of which all these words reach the upstream.
MESSAGES: dict[str, tuple[Any, list[str]]] = {
    "name-empty": ([{**HI, "name": ""}], ["Hi"]),
    "java-nulls": (
        [{**HI, "tool_calls": None, "refusal": None, "audio": None, "annotations": None}],
        ["Hi"],
    ),
    "langchain-index": (
        [{"role": "user", "content": [{"type": "text", "text": "Hi", "index": 0}]}],
        ["Hi"],
    ),
    "part-without-type": ([{"role": "user", "content": [{"text": "Hi"}]}], ["Hi"]),
    "picture-without-type": ([{"role": "user", "content": [{"image_url": {"url": URL}}]}], [URL]),
    "picture-of-responses": (
        [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": URL}}]}],
        [URL],
    ),
    "picture-qwen": ([{"role": "user", "content": [{"type": "image", "image": URL}]}], [URL]),
    "tool-named": (
        [HI, assistant(tool_calls=[CALLED]), {**ANSWERED, "name": "lookup"}],
        ["lookup", "one"],
    ),
    "tool-parts": (
        [
            HI,
            assistant(tool_calls=[CALLED]),
            {**ANSWERED, "content": [{"type": "text", "text": "one"}]},
        ],
        ["one"],
    ),
    "tool-object": (
        [HI, assistant(tool_calls=[CALLED]), {**ANSWERED, "content": {"n": "one"}}],
        ["one"],
    ),
    "tool-number": ([HI, assistant(tool_calls=[CALLED]), {**ANSWERED, "content": 41}], ["41"]),
    "tool-null": ([HI, assistant(tool_calls=[CALLED]), {**ANSWERED, "content": None}, HI], ["Hi"]),
    "call-without-type": (
        [HI, assistant(tool_calls=[{k: CALLED[k] for k in ("id", "function")}]), ANSWERED],
        ["one"],
    ),
    "call-arguments-null": (
        [
            HI,
            assistant(tool_calls=[{**CALLED, "function": {"name": "lookup", "arguments": None}}]),
            ANSWERED,
        ],
        ["one"],
    ),
    "call-beside-text": (
        [HI, assistant(content="I look.", tool_calls=[CALLED]), ANSWERED],
        ["I look."],
    ),
    "mistral-prefix": ([HI, {"role": "assistant", "content": "So", "prefix": True}], ["So"]),
    "role-model": ([HI, {"role": "model", "content": "Yo"}, HI], ["Yo"]),
    "role-ai": ([HI, {"role": "ai", "content": "Yo"}, HI], ["Yo"]),
    "cache-control": (
        [
            {
                "role": "system",
                "content": [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}],
            },
            HI,
        ],
        ["Be"],
    ),
    "reasoning-null": (
        [HI, {"role": "assistant", "content": "Yo", "reasoning_content": None}, HI],
        ["Yo"],
    ),
    "assistant-audio": (
        [HI, {"role": "assistant", "content": None, "audio": {"id": "x"}}, HI],
        ["Hi"],
    ),
}
#: Bodies of ``/v1/responses``, and what reaches the upstream.
BODIES: dict[str, tuple[Json, list[str]]] = {
    "one-item": ({"input": HI}, ["Hi"]),
    "codex": (
        {
            "input": [{"type": "message", **HI}],
            "reasoning": {"effort": "medium", "summary": "auto"},
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": "k",
            "client_metadata": {"x": "y"},
            "text": {"verbosity": "low"},
            "store": False,
        },
        ["Hi"],
    ),
    "agents-empty": (
        {"input": "Hi", "include": [], "tools": [], "metadata": None, "top_logprobs": None},
        ["Hi"],
    ),
    "max_tokens": ({"input": "Hi", "max_tokens": 50}, ["50"]),
    "no-limit": ({"input": "Hi", "max_output_tokens": -1}, ["Hi"]),
    "text-number": ({"input": "Hi", "max_output_tokens": "50"}, ["50"]),
    "format-nested": (
        {
            "input": "Hi",
            "text": {
                "format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
            },
        },
        ["integer"],
    ),
    "response_format": (
        {
            "input": "Hi",
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": SCHEMA},
            },
        },
        ["integer"],
    ),
    "reasoning_effort": ({"input": "Hi", "reasoning_effort": "low"}, ["low"]),
    "messages-in-place-of-input": ({"messages": [HI]}, ["Hi"]),
    "output-object": ({"input": [HI, CALL, {**OUTPUT, "output": {"n": "one"}}]}, ["one"]),
    "output-number": ({"input": [HI, CALL, {**OUTPUT, "output": 41}]}, ["41"]),
    "output-null": ({"input": [HI, CALL, {**OUTPUT, "output": None}, HI]}, ["Hi"]),
    "call-arguments-object": ({"input": [HI, {**CALL, "arguments": {"c": 1}}, OUTPUT]}, ["one"]),
    "chat-calls": ({"input": [HI, assistant(tool_calls=[CALLED]), ANSWERED]}, ["one"]),
    "output_text-by-user": (
        {"input": [{"role": "user", "content": [{"type": "output_text", "text": "Hi"}]}]},
        ["Hi"],
    ),
    "reasoning-summary-null": (
        {"input": [HI, {"type": "reasoning", "id": "r", "summary": None}, HI]},
        ["Hi"],
    ),
}


@pytest.fixture(name="world", scope="module")
def answering(world: Scenario) -> Scenario:
    world.upstream_answers(answer_hello)
    return world


def send(world: Scenario, path: str, body: Json) -> tuple[int, Json, str]:
    """The status, what the upstream got, and the error in words."""
    before = len(world.requests)
    answered = world.server.request("POST", path, {"model": "m", **body})
    sent = world.requests[-1] if len(world.requests) > before else {}
    return answered.status, sent, "" if answered.status < 400 else json.dumps(answered.json)


def test_fields_of_chat_completions(world: Scenario) -> None:
    wrong = []
    for name, (fields, expected) in CHAT_FIELDS.items():
        for stream in (False, True):
            status, sent, error = send(world, CHAT, {"messages": [HI], "stream": stream, **fields})
            if status != 200 or {key: sent.get(key) for key in expected} != expected:
                wrong.append((name, status, error, sent))
    assert not wrong, "\n".join(map(str, wrong))


def test_tools_of_either_shape_through_either_endpoint(world: Scenario) -> None:
    wrong = []
    for name, (tools, choice, expected) in TOOLS.items():
        fields = {"tools": tools, **({} if choice is None else {"tool_choice": choice})}
        for path, given in ((CHAT, {"messages": [HI]}), (RESPONSES, {"input": "Hi"})):
            status, sent, error = send(world, path, {**given, **fields})
            names = [one["function"]["name"] for one in sent.get("tools", [])]
            if (status, names, sent.get("tool_choice")) != (200, ["lookup"], expected):
                wrong.append((name, path, status, error, sent.get("tool_choice"), names))
    assert not wrong, "\n".join(map(str, wrong))


def test_histories_through_either_endpoint(world: Scenario) -> None:
    wrong = []
    for name, (messages, words) in MESSAGES.items():
        for path, field in ((CHAT, "messages"), (RESPONSES, "input")):
            status, sent, error = send(world, path, {field: messages})
            told = json.dumps(sent.get("messages"))
            if status != 200 or not all(word in told for word in words):
                wrong.append((name, path, status, error, told))
    assert not wrong, "\n".join(map(str, wrong))


def test_bodies_of_responses(world: Scenario) -> None:
    wrong = []
    for name, (body, words) in BODIES.items():
        status, sent, error = send(world, RESPONSES, body)
        told = json.dumps(sent)
        if status != 200 or not all(word in told for word in words):
            wrong.append((name, status, error, told))
    assert not wrong, "\n".join(map(str, wrong))
