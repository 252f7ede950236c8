"""Messages as other libraries write them, through both endpoints: every word reaches the model."""

from __future__ import annotations

import json
from typing import Any

from support.scenario import LOOKUP, Json, Scenario, answer_hello, nested

PNG, PDF, WAV = "iVBORw0KGgo=", "JVBERi0=", "UklGRg=="
PIXEL = f"data:image/png;base64,{PNG}"
URL = "https://a.example/b.png"
HI: Json = {"role": "user", "content": "Hi"}
SCHEMA: Json = {"type": "object", "properties": {"c": {"type": "integer"}}}


def user(*parts: Any) -> Json:
    return {"role": "user", "content": list(parts)}


def assistant(content: Any, **fields: Any) -> Json:
    return {"role": "assistant", "content": content, **fields}


#: Messages, and what of them reaches the model.
MESSAGES: dict[str, tuple[list[Any], list[str]]] = {
    "ai-sdk-parts": (
        [
            {
                "id": "x",
                "role": "user",
                "parts": [{"type": "step-start"}, {"type": "text", "text": "Hello parts"}],
            }
        ],
        ["Hello parts"],
    ),
    "ai-sdk-picture": (
        [user({"type": "file", "mediaType": "image/png", "url": PIXEL})],
        [PIXEL],
    ),
    "ai-sdk-picture-base64": (
        [user({"type": "image", "image": PNG, "mediaType": "image/png"})],
        [PIXEL],
    ),
    "ai-sdk-file": (
        [
            user(
                {
                    "type": "file",
                    "data": PDF,
                    "mediaType": "application/pdf",
                    "filename": "a.pdf",
                }
            )
        ],
        ["a.pdf", f"data:application/pdf;base64,{PDF}"],
    ),
    "gemini-parts": ([{"role": "user", "parts": [{"text": "Hello"}]}], ["Hello"]),
    "gemini-model": (
        [HI, {"role": "model", "parts": [{"text": "Yes"}]}, HI],
        ["Yes"],
    ),
    "gemini-data": (
        [user({"text": "Look"}, {"inline_data": {"mime_type": "image/png", "data": PNG}})],
        ["Look", PIXEL],
    ),
    "gemini-data-camel": (
        [user({"inlineData": {"mimeType": "application/pdf", "data": PDF}})],
        [f"data:application/pdf;base64,{PDF}"],
    ),
    "gemini-audio": (
        [user({"inlineData": {"mimeType": "audio/wav", "data": WAV}})],
        [WAV, '"wav"'],
    ),
    "anthropic-document": (
        [
            user(
                {
                    "type": "document",
                    "title": "a.pdf",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                }
            )
        ],
        ["a.pdf", PDF],
    ),
    "anthropic-document-text": (
        [
            user(
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Plain words"},
                }
            )
        ],
        ["Plain words"],
    ),
    "anthropic-document-url": (
        [user({"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}})],
        ["https://a.example/a.pdf"],
    ),
    "anthropic-call-without-input": (
        [
            HI,
            assistant([{"type": "tool_use", "id": "c1", "name": "lookup"}]),
            user({"type": "tool_result", "tool_use_id": "c1", "content": "one"}),
        ],
        ["lookup", "one"],
    ),
    "anthropic-error": (
        [
            HI,
            assistant([{"type": "tool_use", "id": "c1", "name": "lookup", "input": {}}]),
            user(
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "is_error": True,
                    "content": [{"type": "text", "text": "It broke"}],
                }
            ),
        ],
        ["It broke"],
    ),
    "ollama-pictures": ([{**HI, "images": [PNG]}], ["Hi", PIXEL]),
    "ollama-pictures-alone": (
        [{"role": "user", "content": "", "images": [PNG, URL]}],
        [PIXEL, URL],
    ),
    "langchain-type": ([{"type": "human", "content": "Hello"}], ["Hello"]),
    "langchain-types": (
        [
            {"type": "system", "content": "Be kind."},
            {"type": "human", "content": "Hi"},
            {"type": "ai", "content": "Yes", "tool_calls": [], "invalid_tool_calls": []},
            {"type": "human", "content": "Go on"},
        ],
        ["Be kind.", "Yes", "Go on"],
    ),
    "langchain-picture": (
        [user({"type": "image", "source_type": "base64", "data": PNG, "mime_type": "image/png"})],
        [PIXEL],
    ),
    "langchain-picture-v1": (
        [user({"type": "image", "base64": PNG, "mime_type": "image/png"})],
        [PIXEL],
    ),
    "langchain-picture-url": ([user({"type": "image", "url": URL})], [URL]),
    "langchain-file": (
        [
            user(
                {
                    "type": "file",
                    "base64": PDF,
                    "mime_type": "application/pdf",
                    "filename": "a.pdf",
                }
            )
        ],
        ["a.pdf", PDF],
    ),
    "langchain-audio": (
        [user({"type": "audio", "base64": WAV, "mime_type": "audio/wav"})],
        [WAV, '"wav"'],
    ),
    "langchain-plain": (
        [user({"type": "text-plain", "text": "Words of a file", "mime_type": "text/plain"})],
        ["Words of a file"],
    ),
    "langchain-thoughts": (
        [HI, assistant([{"type": "reasoning", "reasoning": "Hm"}, {"type": "text", "text": "Yo"}])],
        ["Yo"],
    ),
    "langchain-calls": (
        [
            HI,
            assistant(
                "",
                tool_calls=[{"name": "lookup", "args": {"c": 1}, "id": "c1", "type": "tool_call"}],
            ),
            {"role": "tool", "tool_call_id": "c1", "content": "one"},
        ],
        ["lookup", '{\\"c\\":1}', "one"],
    ),
    "llama-index-blocks": (
        [{"role": "user", "blocks": [{"block_type": "text", "text": "Hello"}]}],
        ["Hello"],
    ),
    "llama-index-chatbot": ([HI, {"role": "chatbot", "content": "Yes"}, HI], ["Yes"]),
    "assistants-text": (
        [user({"type": "text", "text": {"value": "Hello", "annotations": []}})],
        ["Hello"],
    ),
    "bedrock-picture": (
        [user({"image": {"format": "png", "source": {"bytes": PNG}}})],
        [PIXEL],
    ),
    "bedrock-document": (
        [user({"document": {"format": "pdf", "name": "a", "source": {"bytes": PDF}}})],
        [f"data:application/pdf;base64,{PDF}"],
    ),
    "qwen-picture": ([user({"image": PIXEL}, {"text": "What?"})], [PIXEL, "What?"]),
    "mistral-document": (
        [user({"type": "document_url", "document_url": "https://a.example/a.pdf"})],
        ["https://a.example/a.pdf"],
    ),
    "ai-sdk-output-with-picture": (
        [
            HI,
            assistant([{"type": "tool-call", "toolCallId": "c1", "toolName": "lookup"}]),
            {
                "role": "tool",
                "content": [
                    {
                        "type": "tool-result",
                        "toolCallId": "c1",
                        "output": {
                            "type": "content",
                            "value": [
                                {"type": "text", "text": "one"},
                                {"type": "media", "data": PNG, "mediaType": "image/png"},
                            ],
                        },
                    }
                ],
            },
        ],
        ["one", PIXEL],
    ),
    "picture-url-beside": ([user({"type": "image_url", "url": URL})], [URL]),
    "picture-mcp": ([user({"type": "image", "data": PNG, "mimeType": "image/png"})], [PIXEL]),
    "message-text": ([{"role": "user", "text": "Hello"}], ["Hello"]),
}
#: Calls and outputs as parts, and the roles of what the upstream gets.
TOOL_ROUNDS: dict[str, list[Any]] = {
    "ai-sdk": [
        HI,
        assistant(
            [
                {"type": "text", "text": "Let me see."},
                {"type": "tool-call", "toolCallId": "c1", "toolName": "lookup", "input": {"c": 1}},
            ]
        ),
        {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "c1",
                    "toolName": "lookup",
                    "output": {"type": "text", "value": "one"},
                }
            ],
        },
    ],
    "ai-sdk-4": [
        HI,
        assistant(
            [
                {"type": "text", "text": "Let me see."},
                {"type": "tool-call", "toolCallId": "c1", "toolName": "lookup", "args": {"c": 1}},
            ]
        ),
        {
            "role": "tool",
            "content": [{"type": "tool-result", "toolCallId": "c1", "result": "one"}],
        },
    ],
    "gemini": [
        HI,
        {
            "role": "model",
            "parts": [
                {"text": "Let me see."},
                {"functionCall": {"id": "c1", "name": "lookup", "args": {"c": 1}}},
            ],
        },
        {
            "role": "user",
            "parts": [{"functionResponse": {"id": "c1", "name": "lookup", "response": "one"}}],
        },
    ],
    "bedrock": [
        user({"text": "Hi"}),
        assistant(
            [
                {"text": "Let me see."},
                {"toolUse": {"toolUseId": "c1", "name": "lookup", "input": {"c": 1}}},
            ]
        ),
        user({"toolResult": {"toolUseId": "c1", "content": [{"type": "text", "text": "one"}]}}),
    ],
}
#: Definitions of a tool with one parameter.
TOOLS: dict[str, Json] = {
    "mcp-typed": {"type": "function", "name": "lookup", "inputSchema": SCHEMA},
    "anthropic-typed": {"type": "function", "name": "lookup", "input_schema": SCHEMA},
    "upper": {"type": "Function", "function": {"name": "lookup", "parameters": SCHEMA}},
    "ai-sdk-nested": {"type": "function", "function": {"name": "lookup", "inputSchema": SCHEMA}},
}


def test_messages_of_libraries_reach_the_model(world: Scenario) -> None:
    world.upstream_answers(answer_hello)
    for name, (messages, words) in MESSAGES.items():
        for outcome in (world.respond(messages, stream=False), world.chat(messages, stream=False)):
            assert outcome.text == "Hello", (name, outcome.error)
            sent = json.dumps(world.requests[-1]["messages"])
            assert [one for one in words if one not in sent] == [], (name, sent)


def test_tool_rounds_of_libraries_are_calls_and_outputs(world: Scenario) -> None:
    world.upstream_answers(answer_hello)
    for name, messages in TOOL_ROUNDS.items():
        for outcome in (world.respond(messages, stream=False), world.chat(messages, stream=False)):
            assert outcome.text == "Hello", (name, outcome.error)
            sent = world.requests[-1]["messages"]
            assert [one["role"] for one in sent] == ["user", "assistant", "tool"], (name, sent)
            assert sent[1]["content"] == "Let me see.", name
            (made,) = sent[1]["tool_calls"]
            assert json.loads(made["function"]["arguments"]) == {"c": 1}, name
            assert (made["id"], sent[2]["tool_call_id"], sent[2]["content"]) == ("c1", "c1", "one")


def test_definitions_of_libraries_keep_their_schema(world: Scenario) -> None:
    world.upstream_answers(answer_hello)
    for name, tool in TOOLS.items():
        for outcome in (
            world.respond(stream=False, tools=[tool]),
            world.chat(stream=False, tools=[tool]),
        ):
            assert outcome.text == "Hello", (name, outcome.error)
            (sent,) = world.requests[-1]["tools"]
            assert sent == nested(LOOKUP), name


def test_a_schema_as_the_text_of_its_json_is_one(world: Scenario) -> None:
    world.upstream_answers(answer_hello)
    schema = {"name": "n", "schema": json.dumps(SCHEMA)}
    given = {"type": "json_schema", "json_schema": schema}
    world.chat(stream=False, response_format=given).expect("stop", "Hello")
    text = {"format": {"type": "json_schema", **schema}}
    world.respond(stream=False, text=text).expect("completed", "Hello")
    for request in world.requests[-2:]:
        assert request["response_format"]["json_schema"]["schema"] == SCHEMA


def test_what_has_no_one_meaning_is_refused_by_name(world: Scenario) -> None:
    refused: dict[str, Any] = {
        "messages[0].role": [{"role": "narrator", "content": "x"}],
        "messages[0].content[0].type": [user({"type": "non_standard", "value": {"a": 1}})],
        "messages[0].content[0].file.file_data": [user({"type": "file", "filename": "a.pdf"})],
        "messages[0].content": [{"role": "user"}],
    }
    for param, messages in refused.items():
        error = world.chat(messages, stream=False).error
        assert error is not None
        assert error["param"] == param
