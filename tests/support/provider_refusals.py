"""Refusals of providers: what each refuses of a request, and the words in which it says so."""

from __future__ import annotations

from support.request_faults import (
    EMPTY,
    NAMED,
    PARALLEL,
    SCHEMA,
    STRICT,
    SYSTEM,
    TOOLS,
    TURNS,
    WHOLE,
    Refusal,
    begins_otherwise,
    calls_without_tools,
    does_not_alternate,
    ends_otherwise,
    formats_other_than,
    has,
    has_blank,
    has_blank_beside_calls,
    has_call_without_thoughts,
    has_odd_name,
    has_parallel_calls,
    has_strict,
    has_system,
    lacks,
    roles,
)
from support.strict_upstreams import (
    CALL,
    OUTPUT,
    ROUND,
    messages_of,
    said,
    user,
)

#: What is refused, and in the words of which providers.
REFUSALS: dict[str, Refusal] = {
    "turns": (
        does_not_alternate,
        TURNS,
        {},
        [
            "After the (optional) system message(s), user or tool message(s) should alternate with "
            "assistant message(s).",
            "After the (optional) system message(s), user and assistant roles should be "
            "alternating.",
            "Conversation roles must alternate user/assistant/user/assistant/... at row 1",
            "the role of message with odd index in the messages must be user or function",
            "the length of messages must be an odd number",
            "messages must alternate between user and assistant",
            "Roles must alternate between 'user' and 'assistant'. Found multiple 'user' "
            "roles in a row.",
            "messages[1].role must be assistant",
            "Invalid message sequence: consecutive user messages",
            "two consecutive messages with role user",
            "Expected message 2 to be from assistant, got user",
            "Bad conversation: role user cannot follow user",
            "ValidationException: A conversation must alternate between user and assistant "
            "roles. Make sure the conversation alternates between user and assistant roles "
            "and try again.",
            "对话必须以 user 和 assistant 交替",
        ],
    ),
    "beginning": (
        begins_otherwise,
        [said("I am Bo."), user("Hi")],
        {},
        [
            "A conversation must start with a user message. Try again with a conversation that "
            "starts with a user message.",
            "First message must be from user",
            'messages: first message must use the "user" role',
            "Conversation must begin with a user turn",
            "the first role must be user",
            "Please ensure that multiturn requests alternate between user and model.",
        ],
    ),
    "beginning-with-a-call": (
        begins_otherwise,
        [CALL, OUTPUT, user("And?")],
        {},
        [
            "Please ensure that function call turn comes immediately after a user turn or after a "
            "function response turn.",
        ],
    ),
    "end": (
        ends_otherwise,
        [user("One."), said("Begin")],
        {},
        [
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
            "assistant",
            "last message role must be user",
            "The final message must be a user message",
            "This model does not support assistant message prefill. The conversation must end with "
            "a user message.",
            "messages 最后一个角色必须为 user 或 tool",
            "Last message must have role `user` or `tool`.",
            "messages must end with a user message",
            "the last message must be from the user",
            "Pre-filling the assistant response is not supported",
            "Cannot continue from an assistant message",
            "Invalid value for last message role: assistant",
        ],
    ),
    "system": (
        has_system,
        SYSTEM,
        {},
        [
            "Please use a valid role: user, model.",
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "invalid params, invalid message role: system (2013)",
            "Unsupported role system: only user and assistant allowed",
            "System role not supported",
            "messages.0.role: Input should be 'user' or 'assistant'",
            "unknown variant `system`, expected `user` or `assistant`",
            'messages: Unexpected role "system". The Messages API accepts a top-level '
            '`system` parameter, not "system" as an input message role.',
            "Error: role 'system' is not allowed",
            "[{'type': 'literal_error', 'loc': ('body', 'messages', 0, 'typed-dict', "
            "'role'), 'msg': \"Input should be 'user'\", 'input': 'system', 'ctx': "
            "{'expected': \"'user'\"}}]",
            "This model doesn't accept system prompts",
            "system message is unsupported",
        ],
    ),
    "calls-without-tools": (
        calls_without_tools,
        ROUND,
        {},
        [
            "The toolConfig field must be defined when using toolUse and toolResult blocks.",
            "litellm.UnsupportedParamsError: Bedrock doesn't support tool calling without `tools=` "
            "param specified. Pass `tools=` param OR set `litellm.modify_params = True`",
            "Requests which include `tool_use` or `tool_result` blocks must define tools",
            "No function declarations were provided, but a function call is in the history",
            "`tools` must be set if messages contain tool calls",
            "tools is required when tool_calls are present",
            "Tool calls in history but no tools given",
            "messages contain tool_calls but 'tools' is missing",
        ],
    ),
    "signatures": (
        lambda request: "thought_signature" not in str(request),
        ROUND,
        {},
        [
            "Function call is missing a thought_signature in functionCall parts. This is required "
            "for tools to work correctly.",
        ],
    ),
    "names-of-outputs": (
        lambda request: any(
            "name" not in it for it in messages_of(request) if it["role"] == "tool"
        ),
        ROUND,
        {},
        [
            "* GenerateContentRequest.contents[2].parts[0].function_response.name: is empty.",
            "messages.2: tool message must have a name",
        ],
    ),
    "content-and-calls": (
        lambda request: any(
            it.get("content") and "tool_calls" in it for it in messages_of(request)
        ),
        [user("Look."), said("I look."), CALL, OUTPUT, user("And?")],
        {},
        [
            "Assistant message must have either content or tool_calls, but not both.",
            "An assistant message with 'tool_calls' must not have 'content'",
        ],
    ),
    "parallel-calls": (
        has_parallel_calls,
        PARALLEL,
        {},
        [
            "This model only supports single tool-calls at once!",
            "Parallel tool calls are not supported: one tool call per message",
            "Only one tool call is allowed per assistant message",
            "Multiple tool calls in one message are not supported",
            "parallel function calling is not supported",
            "This model only supports one function call at a time",
        ],
    ),
    "names-of-functions": (
        has_odd_name,
        NAMED,
        {},
        [
            "Invalid 'messages[1].tool_calls[0].function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
            "Invalid function name. Must start with a letter or an underscore.",
            "messages.1.content.0.tool_use.name: String should match pattern '^[a-zA-Z0-9_-]+$'",
            "Value 'functions.lookup v2' at 'messages.1.member.content.1.member.toolUse.name' "
            "failed to satisfy constraint: Member must satisfy regular expression pattern",
            "function name must match ^[a-zA-Z0-9_-]{1,64}$",
            "Function name contains invalid characters",
            "Invalid tool name 'functions.lookup v2': only letters, digits, _ and - are allowed",
            "tools.name: invalid format",
        ],
    ),
    "empty": (
        has_blank,
        EMPTY,
        {},
        [
            "Each message must have at least one content element.",
            "messages 参数非法。请检查文档。",
            "invalid params, chat content is empty (2013)",
            "invalid request: message must be at least 1 token long or tool results must be "
            "specified.",
            "Unable to submit request because it must have a text parameter",
            "invalid message content type: <nil>",
            "<400> InternalError.Algo.InvalidParameter: The content field is a required field.",
            "messages: text content blocks must be non-empty",
            "messages.1: all messages must have non-empty content except for the optional "
            "final assistant message",
            "text content blocks must contain non-whitespace text",
            "content cannot be empty",
            "messages[1].content: String should have at least 1 character",
            "Field 'content' must not be blank",
            "'content' is a required property - 'messages.1'",
            "[1213] 未正常接收到prompt参数",
            "contents.parts must not be empty.",
            "Invalid value: content is an empty string",
            "message content is null",
        ],
    ),
    "empty-beside-calls": (
        has_blank_beside_calls,
        ROUND,
        {},
        ["The text field in the ContentBlock object at messages.1.content.0 is blank."],
    ),
    "thoughts": (
        has_call_without_thoughts,
        ROUND,
        {},
        [
            "The `reasoning_content` in the thinking mode must be passed back to the API.",
            "thinking is enabled but reasoning_content is missing in assistant tool call message "
            "at index 2",
        ],
    ),
    "stream_options": (
        has("stream_options"),
        "One.",
        {"stream": True},
        [
            "Unrecognized request argument supplied: stream_options",
            "unexpected keyword argument 'stream_options'",
            'json: unknown field "stream_options"',
            "不支持的参数 stream_options",
            "stream_options is illegal",
            "[{'type': 'extra_forbidden', 'loc': ('body', 'stream_options'), 'msg': 'Extra "
            "inputs are not permitted'}]",
            "Additional properties are not allowed ('stream_options' was unexpected)",
            "Invalid field: stream_options",
            "stream_options.include_usage is not supported",
            "Unsupported parameter(s): `stream_options`",
            "request body contains unknown property: stream_options",
        ],
    ),
    "parallel_tool_calls": (
        lambda request: "parallel_tool_calls" in request,
        "One.",
        {**TOOLS, "parallel_tool_calls": False},
        [
            "`parallel_tool_calls` is not supported with this model",
            "Unsupported parameter: 'parallel_tool_calls' is not supported with this model.",
            "parallel_tool_calls: Extra inputs are not permitted",
            "Argument not supported: parallel_tool_calls",
            "parallel_tool_calls is only allowed when tools are specified",
        ],
    ),
    "strict": (
        has_strict,
        "One.",
        STRICT,
        [
            "unknown field: parameter 'strict' is not a valid field. For proper usage, please "
            "refer to the reference",
            "Unknown name \"strict\" at 'tools[0].function_declarations[0]': Cannot find field.",
            "tools[0].function.strict: Extra inputs are not permitted",
            "property 'strict' is unsupported",
            "[{'type': 'extra_forbidden', 'loc': ('body', 'tools', 0, 'function', "
            "'strict'), 'msg': 'Extra inputs are not permitted', 'input': True}]",
            "Strict tools are not supported for this model",
        ],
    ),
    "only-streams": (
        lacks("stream"),
        "One.",
        WHOLE,
        [
            "parameter.enable_thinking must be set to false for non-streaming calls",
            "Stream must be set to true",
            "Streaming is required for this operation that may take longer than 10 minutes",
            "This model only supports streaming output",
            "only stream mode is supported",
            "Non-streaming requests are not supported",
            "stream=false is not allowed for this model",
            "Please use streaming",
        ],
    ),
    "never-streams": (
        has("stream"),
        "One.",
        {**TOOLS, "stream": True},
        [
            "Cannot use tools with stream",
            "The model is unsupported for streaming",
            "Streaming is not supported for this model",
            "stream=True is not supported when tools are used",
            "This deployment has streaming disabled",
            "organization must be verified to stream this model",
        ],
    ),
    "format": (
        formats_other_than(None),
        "One.",
        SCHEMA,
        [
            "json mode cannot be combined with tool/function calling",
            "Function calling with a response mime type: 'application/json' is unsupported",
            'invalid format: expected "json" or a JSON schema',
            "Cannot use response_format with tools",
            "Tools and response_format can not be used together",
            "structured outputs are not compatible with tool use",
            "response_format json_schema is not available for this deployment",
            "guided decoding is disabled",
        ],
    ),
    "schema": (
        formats_other_than("json_object", None),
        "One.",
        SCHEMA,
        [
            "response_format: Input should be 'text' or 'json_object'",
            "'response_format.type' must be one of 'text', 'json_object'",
            "json_schema is not supported, use json_object",
            "Invalid value 'json_schema' for response_format.type",
            "unknown variant `json_schema`, expected `text` or `json_object`",
            "This model only supports JSON mode",
        ],
    ),
    "roles-of-outputs": (
        lambda request: "tool" in roles(request),
        ROUND,
        {},
        [
            "messages[2].role: unknown variant `tool`, expected one of `system`, `user`, "
            "`assistant`",
            "Unknown role: tool",
            "Invalid role 'tool'",
            "role `tool` is not supported",
            "Only user, assistant and system roles are supported",
            "messages with role tool are not allowed",
            "Unrecognized message role: tool",
        ],
    ),
}
#: The words that reach the model, where they are not the first message's.
WORDS = {
    "turns": ["One.", "Two.", "Sys.", "Three."],
    "beginning": ["I am Bo.", "Hi"],
    "beginning-with-a-call": ["Found.", "And?"],
    "end": ["One.", "Begin"],
    "system": ["Sys.", "One."],
    "content-and-calls": ["I look.", "Found.", "And?"],
    "parallel-calls": ["Found.", "Second.", "And?"],
    "empty": ["One.", "Two."],
}
