"""Tool refusal wordings: what upstreams refuse of tools, calls and outputs, in many words."""

# ruff: noqa: E501

from __future__ import annotations

from support.request_faults import (
    NAMED,
    PARALLEL,
    STRICT,
    TOOLS,
    Refusal,
    calls_without_tools,
    has_ids_other_than,
    has_keyword,
    has_odd_name,
    has_parallel_calls,
    has_parallel_field,
    has_strict,
    has_tool_role,
    has_user_after_tool,
)
from support.scenario import Json
from support.strict_upstreams import (
    ROUND,
)

PROPERTY: Json = {"type": "string", "format": "date", "pattern": "^a", "default": "a"}
PARAMETERS: Json = {
    "type": "object",
    "$schema": "https://json-schema.org/draft-07/schema",
    "additionalProperties": False,
    "properties": {"c": PROPERTY},
}
KEYWORDS: Json = {"tools": [{"type": "function", "name": "lookup", "parameters": PARAMETERS}]}

#: What is refused, and in which words.
REFUSALS: dict[str, Refusal] = {
    "user-after-tool": (
        has_user_after_tool,
        ROUND,
        {},
        [
            "Invalid message order: user cannot follow tool",
            "A 'tool' message must be followed by an 'assistant' message",
            "Expected assistant role after tool",
            "Expected last role Assistant after Tool but got User",
            "tool results must be followed by an assistant turn",
            "Unexpected role 'user' after role 'tool'",
            "Message with role 'user' can't come directly after 'tool'",
        ],
    ),
    "ids9": (
        has_ids_other_than("[a-zA-Z0-9]{9}"),
        ROUND,
        {},
        [
            "Invalid tool_call_id: must be 9 alphanumeric characters",
            "Tool call IDs should be alphanumeric strings with length 9!",
            "tool_call_id must match ^[a-zA-Z0-9]{9}$",
            "Tool call id has to be defined in serving mode with exactly nine characters",
            "Function call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.",
        ],
    ),
    "calls-without-tools": (
        calls_without_tools,
        ROUND,
        {},
        [
            "tools must be provided when messages contain tool calls",
            "tools: Field required",
            "Tool use found but no tools specified",
            "messages contain tool_calls but tools is empty",
            "Found tool results but the `tools` param is missing",
            "When messages have tool calls, the tools parameter has to be set",
        ],
    ),
    "no-tool-role": (
        has_tool_role,
        ROUND,
        {},
        [
            "role 'tool' is not supported",
            "Unsupported role: tool",
            "Invalid role: tool",
            "messages[2].role: tool is not one of user, assistant, system",
            "Only user and assistant roles are supported!",
            "model does not support function calling",
            "This model does not support tools",
            "unknown variant `tool`, expected one of `system`, `user`, `assistant`",
            "messages.2.role: Input should be 'system', 'user' or 'assistant'",
            "registry.ollama.ai/library/gemma:2b does not support tools",
            "Tool messages are unsupported",
            "Function calling is not enabled for this model",
        ],
    ),
    "kw-additional": (
        has_keyword("additionalProperties"),
        "One.",
        KEYWORDS,
        [
            "Invalid JSON payload received. Unknown name \"additionalProperties\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
            "Unknown name 'additionalProperties' at tools[0].function.parameters",
            "tools.0.function.parameters: additionalProperties is not supported",
            "Unsupported schema keyword: additionalProperties",
            "Schema keyword 'additionalProperties' is not permitted in tool parameters",
            "The tool schema uses an unsupported property: additionalProperties",
        ],
    ),
    "kw-schema": (
        has_keyword("$schema"),
        "One.",
        KEYWORDS,
        [
            "Invalid JSON payload received. Unknown name \"$schema\" at 'tools[0].function_declarations[0].parameters': Cannot find field.",
            "Unsupported keyword in function parameters: $schema",
            "$schema is not allowed in tool parameters",
        ],
    ),
    "kw-pattern": (
        has_keyword("pattern"),
        "One.",
        KEYWORDS,
        [
            "JSON schema keyword 'pattern' is not supported in function parameters",
            "tools[0].function.parameters.properties.c.pattern: unsupported keyword",
            "Invalid tool schema: 'pattern' is not permitted",
            "grammar error: unsupported schema feature: pattern",
        ],
    ),
    "kw-format": (
        has_keyword("format"),
        "One.",
        KEYWORDS,
        [
            "only 'enum' and 'date-time' are supported for STRING type: tools[0].function_declarations[0].parameters.properties[c].format",
            "format 'date' is not supported in tool parameters",
        ],
    ),
    "strict": (
        has_strict,
        "One.",
        STRICT,
        [
            "tools.0.function.strict: Extra inputs are not permitted",
            "Unknown parameter: 'tools[0].function.strict'.",
            "strict mode is not supported",
            "property 'tools.0.function.strict' is unsupported",
            "unknown field `strict`",
            "strict tools aren't supported by this provider",
        ],
    ),
    "parallel": (
        has_parallel_field,
        "One.",
        {**TOOLS, "parallel_tool_calls": False},
        [
            "Unknown parameter: 'parallel_tool_calls'.",
            "Unrecognized request argument supplied: parallel_tool_calls",
            "parallel_tool_calls is not supported for this model",
            "unexpected keyword argument 'parallel_tool_calls'",
            "property 'parallel_tool_calls' is unsupported",
        ],
    ),
    "parallel-calls": (
        has_parallel_calls,
        PARALLEL,
        {},
        [
            "Only one tool call per message is supported",
            "This template supports one tool call at a time",
            "multiple tool calls in one message are not allowed",
            "Cannot have more than one tool call",
            "Assistant message may contain at most one tool call",
            "Parallel function calling is not supported",
        ],
    ),
    "fname": (
        has_odd_name,
        NAMED,
        {},
        [
            "Function name must match ^[a-zA-Z0-9_-]{1,64}$",
            "tool_calls.0.function.name: String should match pattern",
            "Tool name contains invalid characters",
            "Invalid function name: functions.lookup v2",
            "function.name: value does not match regex pattern",
        ],
    ),
}

WORDS = {
    "no-tool-role": ["Found.", "And?"],
    "parallel-calls": ["Found.", "Second.", "And?"],
}
