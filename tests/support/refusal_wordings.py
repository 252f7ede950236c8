"""Refusal wordings: what upstreams refuse of messages, formats and fields, in many words."""

# ruff: noqa: E501

from __future__ import annotations

from typing import Any

from support.request_faults import (
    EMPTY,
    SCHEMA,
    SYSTEM,
    TURNS,
    WHOLE,
    Refusal,
    begins_otherwise,
    does_not_alternate,
    ends_otherwise,
    formats_other_than,
    has,
    has_blank,
    has_developer,
    has_ids_other_than,
    has_later_system,
    has_parts,
    has_system,
    lacks,
)
from support.scenario import Json
from support.strict_upstreams import (
    CALL,
    OUTPUT,
    developer,
    part,
    said,
    system,
    user,
)

PARTS: Any = [user([part("One."), part("Two.")])]
LATE = [user("One."), said("Yes."), system("Sys."), user("Two.")]
DEVELOPER = [developer("Dev."), user("One.")]
LONG_ID = f"call_{'x' * 60}"
LONG_IDS = [
    user("Look."),
    {**CALL, "call_id": LONG_ID},
    {**OUTPUT, "call_id": LONG_ID},
    user("And?"),
]
LIMITED: Json = {"max_output_tokens": 50}
STREAMED: Json = {"stream": True}

#: What is refused, and in which words.
REFUSALS: dict[str, Refusal] = {
    "system-late": (
        has_later_system,
        LATE,
        {},
        [
            "System messages must be at the start of the conversation",
            "Only one system message is allowed, and it must be first",
            "role 'system' is only allowed as the first message",
            "Invalid message sequence: system message after user",
            "system角色只能出现在第一条消息",
            'Error rendering prompt with jinja template: "System message must be at the beginning."',
            "messages[2]: system messages may only appear before the first user message",
            "A system message must precede all others",
            "System prompt has to come first",
        ],
    ),
    "no-system": (
        has_system,
        SYSTEM,
        {},
        [
            "'messages[0].role' must be one of 'user', 'assistant', 'tool'",
            "This model does not support system messages",
            "system prompt is not supported for this model",
            "messages[0].role: Input should be 'user' or 'assistant'",
            "Role system is invalid",
            "Unknown role: system",
            "Conversation roles must be user or assistant",
            "o1-mini does not support system message",
        ],
    ),
    "developer": (
        has_developer,
        DEVELOPER,
        {},
        [
            "unsupported role: developer",
            "Invalid value: 'developer'. Supported values are: 'system', 'assistant', 'user', 'function', and 'tool'.",
            "developer is not one of ['system', 'assistant', 'user', 'function'] - 'messages.0.role'",
            "Unknown role developer",
            "messages.0.role: Input should be 'system', 'user', 'assistant' or 'tool'",
            "unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool`",
            "[] is too short - 'messages' role developer",
        ],
    ),
    "alternate": (
        does_not_alternate,
        TURNS,
        {},
        [
            'Roles must alternate between "user" and "assistant", but found multiple "user" roles in a row',
            "Please ensure that multiturn requests alternate between user and model.",
            "multiple consecutive user messages are not supported",
            "Expected alternating user/assistant messages",
            'messages: first message must use the "user" role and roles must alternate',
            "A user message must be followed by an assistant message",
            "messages角色必须交替出现",
            "message roles should be in turn user and assistant",
        ],
    ),
    "begin": (
        begins_otherwise,
        [said("I am Bo."), user("Hi")],
        {},
        [
            "The first message should be a user message",
            "Expected first role User or System but got assistant",
            "messages[0].role must be user or system",
        ],
    ),
    "ids40": (
        has_ids_other_than(".{1,40}"),
        LONG_IDS,
        {},
        [
            "Invalid 'messages[1].tool_calls[0].id': string too long. Expected a string with maximum length 40, but got a string with length 65 instead.",
            "tool_calls.0.id: String should have at most 40 characters",
            "tool call id exceeds 40 characters",
            "`tool_use.id` is too long",
        ],
    ),
    "format": (
        formats_other_than("json_object", "text", None),
        "One.",
        SCHEMA,
        [
            "'json_schema' is not a supported response_format type",
            "Invalid value: 'json_schema'. Supported values are: 'text' and 'json_object'.",
            "Unsupported response_format type: json_schema",
            "`response_format` value is not allowed",
            "structured outputs are not supported by this model",
            "guided decoding is not enabled",
            "JSON schema is not supported for this model",
            "response_format: unknown variant `json_schema`, expected `text` or `json_object`",
            "response_format.type must be one of text, json_object",
            "json_schema response format not implemented",
            "Schema-constrained output is unavailable",
            "不支持的response_format",
        ],
    ),
    "format-none": (
        formats_other_than(None),
        "One.",
        SCHEMA,
        [
            "response_format is not supported",
            "Unknown parameter: 'response_format'",
            "Unrecognized request argument supplied: response_format",
            "the model does not support JSON mode",
            "Only one of response_format and tools can be set",
            "unknown field `response_format`",
            "Extra inputs are not permitted: response_format",
            "xgrammar is not installed: cannot use structured output",
        ],
    ),
    "stream_options": (
        has("stream_options"),
        "One.",
        STREAMED,
        [
            "stream_options is not supported",
            "Unsupported parameter: 'stream_options'",
            "stream_options: Extra inputs are not permitted",
            "unknown field `stream_options`, expected one of `model`, `messages`",
            "Unrecognized key(s) in object: 'stream_options'",
            "property 'stream_options' is unsupported",
            "stream_options.include_usage is not supported by this endpoint",
            "[{'loc': ('body', 'stream_options'), 'msg': 'extra fields not permitted'}]",
            "Argument not supported: stream_options",
            "Parameter `stream_options` is not allowed",
        ],
    ),
    "max-tokens": (
        has("max_completion_tokens"),
        "One.",
        LIMITED,
        [
            "Unknown parameter: max_completion_tokens",
            "unexpected keyword argument 'max_completion_tokens'",
            "Extra inputs are not permitted: max_completion_tokens",
            "unrecognized field max_completion_tokens, did you mean max_tokens?",
            "property 'max_completion_tokens' is unsupported",
            "max_completion_tokens is not allowed",
            "unknown field `max_completion_tokens`",
        ],
    ),
    "max-completion": (
        has("max_tokens"),
        "One.",
        LIMITED,
        [
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens is deprecated, use max_completion_tokens",
            "this model is not supported MaxTokens, please use MaxCompletionTokens",
            "max_tokens cannot be used with reasoning models; use max_completion_tokens",
        ],
    ),
    "cache-key": (
        has("prompt_cache_key"),
        "One.",
        {"prompt_cache_key": "k"},
        [
            "Unrecognized request argument supplied: prompt_cache_key",
            "Unknown parameter: 'prompt_cache_key'.",
            "prompt_cache_key: Extra inputs are not permitted",
            "property 'prompt_cache_key' is unsupported",
            'unknown field "prompt_cache_key"',
        ],
    ),
    "tier": (
        has("service_tier"),
        "One.",
        {"service_tier": "flex"},
        [
            "Unknown parameter: 'service_tier'.",
            "service_tier: Extra inputs are not permitted",
            "service_tier is not supported",
        ],
    ),
    "parts": (
        has_parts,
        PARTS,
        {},
        [
            "content must be a string",
            "messages[0].content: Input should be a valid string",
            "invalid type: sequence, expected a string at line 1 column 40",
            "Expected string, received array",
            "messages.0.content.str: Input should be a valid string",
            "json: cannot unmarshal array into Go struct field Message.messages.content of type string",
            "Invalid type for 'messages[0].content': expected a string, but got an array instead.",
            "list content is not supported, use a string",
            "[{'role': 'user'}] is not of type 'string' - 'messages.0.content'",
            "messages content array is not supported by this model",
            "Failed to deserialize the JSON body into the target type: messages[0]: invalid type: sequence, expected a string",
        ],
    ),
    "empty": (
        has_blank,
        EMPTY,
        {},
        [
            "messages[1].content must not be empty",
            "text content blocks must be non-empty",
            "messages: text content blocks must contain non-whitespace text",
            "Message content cannot be empty",
            "content must have at least 1 character",
            "content is required",
            "消息内容不能为空",
            "The message at index 1 has no content",
            "Invalid 'messages[1].content': empty string. Expected a string with minimum length 1, but got an empty string instead.",
            "message content was null",
            "Missing required field: content",
        ],
    ),
    "last": (
        ends_otherwise,
        [user("One."), said("Begin")],
        {},
        [
            "The last message must have role 'user'",
            "last message cannot be assistant",
            "Assistant response prefill is incompatible with enable_thinking.",
            "Expected the conversation to end with role user",
            "The model cannot continue an assistant message",
            "messages[-1].role must be user or tool",
            "Prefilling assistant messages is not supported for this model.",
            "Pre-filling is not allowed",
        ],
    ),
    "never-stream": (
        has("stream"),
        "One.",
        STREAMED,
        [
            "Streaming is not supported for this model",
            "This model does not support streaming",
            "stream=true is not allowed for this model",
            "Your organization must be verified to stream this model. Please go to: https://platform.openai.com/settings",
            "streaming with this deployment is not supported",
            "Streaming responses are disabled",
        ],
    ),
    "always-stream": (
        lacks("stream"),
        "One.",
        WHOLE,
        [
            "This model only supports streaming",
            "only streaming is supported",
            "stream=false is not supported",
            "non-streaming requests aren't supported",
            "please set stream to true",
            "Non-streaming is not supported. Set stream=true",
            "parameter.enable_thinking only support stream call",
            "This model only support stream mode, please enable the stream parameter to access the model.",
            "Streaming must be enabled",
            "非流式调用不支持该模型",
        ],
    ),
}

WORDS = {
    "system-late": ["One.", "Sys.", "Two."],
    "no-system": ["Sys.", "One."],
    "developer": ["Dev.", "One."],
    "alternate": ["One.", "Two.", "Sys.", "Three."],
    "begin": ["I am Bo.", "Hi"],
    "parts": ["One.", "Two."],
    "empty": ["One.", "Two."],
    "last": ["One.", "Begin"],
}
