"""Reported refusals: what servers and gateways refuse, in the words that people have met."""

# ruff: noqa: E501

from __future__ import annotations

from support.request_faults import (
    EMPTY,
    NAMED,
    SCHEMA,
    STRICT,
    SYSTEM,
    TOOLS,
    TURNS,
    WHOLE,
    Refusal,
    calls_without_tools,
    does_not_alternate,
    formats_other_than,
    has,
    has_blank,
    has_call_without_thoughts,
    has_name,
    has_odd_name,
    has_open_object,
    has_parallel_field,
    has_parts,
    has_strict,
    has_system,
    lacks,
)
from support.strict_upstreams import ROUND, part, said, user

PARTS = [user([part("One."), part("Two.")])]
SPEAKERS = [{**user("One."), "name": "bo"}, said("Yes."), {**user("Two."), "name": "ann"}]

#: What is refused, and in which words.
REFUSALS: dict[str, Refusal] = {
    "turns": (
        does_not_alternate,
        TURNS,
        {},
        [
            "After the optional system message, conversation roles must alternate user and assistant roles except for tool calls and results. at row 189, column 164:\n        {%- if (message['role'] == 'user') != (ns.index % 2 == 0) %}",
            "\n------------\nWhile executing CallExpression at line 189, column 32 in source:\n...== 0) %}↵ {{- raise_exception('After the optional system message, con...\nError: Jinja Exception: After the optional system message, conversation roles must alternate user and assistant roles except for tool calls and results.",
            'messages: roles must alternate between "user" and "assistant", but found multiple "user" roles in a row',
            "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s).",
            "Conversation roles must alternate user/assistant/user/assistant/... Conversation roles must alternate user/assistant/user/assistant/..",
        ],
    ),
    "system": (
        has_system,
        SYSTEM,
        {},
        [
            "Only user, assistant and tool roles are supported, got system",
            "Only user and assistant roles are supported!",
            'Error rendering prompt with jinja template: "System role not supported".',
            "System role not supported",
            "litellm.BadRequestError: OpenAIException - System role not supported",
        ],
    ),
    "thoughts-missing": (
        has_call_without_thoughts,
        ROUND,
        {},
        [
            "The reasoning_content in the thinking mode must be passed back to the API.",
            "The `content[].thinking` in the thinking mode must be passed back to the API.",
            "Missing `reasoning_content` field in the assistant message at message index 2. For more information, please refer to https://api-docs.deepseek.com/guides/thinking_mode#tool-calls",
            "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
            "Provider returned error: The reasoning_content in the thinking mode must be passed back to the API.",
            "messages[1]: assistant message with tool_calls must include reasoning_content when thinking is enabled",
        ],
    ),
    "stream_options": (
        has("stream_options"),
        "Hi",
        {"stream": True},
        [
            'Stream option "include_usage" not supported',
            "Validation: Unsupported parameter(s): `stream_options`",
            "body -> stream_options\n  Extra inputs are not permitted (type=extra_forbidden)",
            "property 'stream_options' is unsupported, did you mean 'stream'?",
            "Unrecognized request argument supplied: stream_options",
            "unknown field `stream_options`, expected one of `model`, `messages`",
            "Unknown parameter: 'stream_options.include_usage'.",
            "The stream_options parameter is not supported by this model",
            "include_usage is not a valid option",
            'json: unknown field "include_usage"',
        ],
    ),
    "parallel_tool_calls": (
        has_parallel_field,
        "Hi",
        {**TOOLS, "parallel_tool_calls": False},
        [
            "Validation: Unsupported parameter(s): `parallel_tool_calls`",
            "parallel_tool_calls: Extra inputs are not permitted",
            "property 'parallel_tool_calls' is unsupported",
        ],
    ),
    "strict": (
        has_strict,
        "Hi",
        STRICT,
        [
            "Tools with strict=True are not supported by this model",
            "tools.0.function.strict: Extra inputs are not permitted",
        ],
    ),
    "open-objects": (
        has_open_object,
        "Hi",
        {**SCHEMA, **TOOLS},
        [
            "'additionalProperties' is required to be supplied and set to false.",
            "tools[0].function.parameters: 'additionalProperties' is required to be supplied and set to false when strict is true",
            "additionalProperties must be false for every object",
        ],
    ),
    "format": (
        formats_other_than(None, "json_object"),
        "Hi",
        SCHEMA,
        [
            "type: Input should be 'text'",
            "response_format.type: Input should be 'text' or 'json_object'",
            "This response_format type is unavailable now",
            "'response_format.type' : value is not one of the allowed values ['text','json_object']",
            "Model does not support structured output",
            "json_schema response format is not supported with this model",
        ],
    ),
    "format-none": (
        formats_other_than(None),
        "Hi",
        SCHEMA,
        [
            "type: Input should be 'text'",
            "response_format.type: Input should be 'text'",
            "Validation: Unsupported parameter(s): `response_format`",
        ],
    ),
    "never-streams": (
        has("stream"),
        "Hi",
        {"stream": True, **TOOLS},
        [
            "Streaming is not supported when tools are present",
            "Streaming requests are not yet allowed.",
            "Streaming with tools is not supported by this model",
            "stream: streaming tool calls are not supported",
        ],
    ),
    "only-streams": (
        lacks("stream"),
        "Hi",
        WHOLE,
        [
            "parameter.enable_thinking must be set to false for non-streaming calls",
            "parameter.enable_thinking必须设置为false才能进行非流式调用",
            "enable thinking can not be support when `stream=False`",
            "Reasoning is not available with stream=false",
        ],
    ),
    "tools-of-history": (
        calls_without_tools,
        ROUND,
        {},
        [
            "Bedrock doesn't support tool calling without `tools=` param specified for Anthropic models. Pass `tools=` param OR set `litellm.modify_params = True` // `litellm_settings::modify_params: True` to add dummy tool to the request.",
        ],
    ),
    "parts": (
        has_parts,
        PARTS,
        {},
        [
            "2 validation errors for Message\ncontent.str\n  Input should be a valid string [type=string_type, input_value=[{'type': 'text'}], input_type=list]",
            "messages.0.content: Input should be a valid string",
            "Failed to deserialize the JSON body into the target type: messages[0]: invalid type: sequence, expected a string at line 1 column 94",
            "cannot unmarshal array into Go struct field ChatCompletionMessage.messages.content of type string",
        ],
    ),
    "speakers": (
        has_name,
        SPEAKERS,
        {},
        [
            "messages.0.user.name: Extra inputs are not permitted",
            "property 'name' is unsupported",
            "Unknown parameter: 'messages[0].name'.",
        ],
    ),
    "names-of-functions": (
        has_odd_name,
        NAMED,
        TOOLS,
        [
            "The name of the function to be called. Must be a-z, A-Z, 0-9, or contain underscores, with a maximum length of 64.",
            "Invalid 'messages[1].tool_calls[0].function.name': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        ],
    ),
    "empty": (
        has_blank,
        EMPTY,
        {},
        [
            "messages.1: all messages must have non-empty content except for the optional final assistant message",
            "messages: text content blocks must be non-empty",
            "Invalid 'messages' in payload: message at index 1 has no content",
            "The content of messages[1] must not be empty",
        ],
    ),
}
#: The words that reach the model all the same.
WORDS = {
    "turns": ["One.", "Two.", "Sys.", "Three."],
    "system": ["Sys.", "One."],
    "thoughts-missing": ["Found."],
    "parts": ["One.", "Two."],
    "speakers": ["bo", "One.", "ann", "Two."],
    "empty": ["One.", "Two."],
}
