"""Chat template input: renders a call's messages and options as llama.cpp's request body.

Templates of small models know three roles and plain text. All other content of a history is
rendered as such text, and consecutive messages of one role are joined, because many templates
require alternating roles. What a template takes of system messages, its own text says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from antiphon.core.turns import Options
from antiphon.errors import (
    ContextLengthExceededError,
    ImageInputUnsupportedError,
    InvalidRequestError,
)
from antiphon.models.llama.control_tokens import ControlTokenEscaper
from antiphon.models.llama.json_grammar import bound_schema
from antiphon.models.llama.sampling import sampling_fields

#: More characters per token than any text has: a longer one is rejected without counting.
_CHARACTERS_PER_TOKEN = 16
_MAX_TOKENS = 2**31 - 1
#: The token limit of JSON for a call without one: an unbounded grammar would fill the window.
_MAX_JSON_TOKENS = 2048
#: This one means "random" to llama.cpp.
_RANDOM_SEED = 2**32 - 1

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "assistant",
    "function": "assistant",
}
_TOOL_ROLES = ("tool", "function")
#: Appended to a tool's result. Without it a small model greets, or asks what to do.
_FOLLOW_UP_QUESTION = "So what is the answer?"


#: Which system messages a template takes: any, one as the first message, or none.
SystemRole: TypeAlias = Literal["any", "first", "none"]
#: From the template that takes most to the one that takes least.
SYSTEM_ROLES: Final[tuple[SystemRole, ...]] = ("any", "first", "none")
_REFUSES_SYSTEM = re.compile(
    r"system (?:role|messages?|prompts?)[^'\"]{0,20} not (?:be )?(?:supported|allowed)"
    r"|(?:does not|doesn't|not) support[^'\"]{0,20} system"
    r"|only user(?:,| and) (?:assistant|model)\b(?![^'\"]*system)",
    re.IGNORECASE,
)
#: One that treats roles by their names; others write any role's name.
_NAMES_USER = re.compile(r"""['"]user['"]""")
#: In place of a person's first message, where the history begins with an answer.
_BEGINNING: Final = "Hello."

#: For a model without a template: a dialogue as books and web pages have it.
DIALOGUE_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}"
    "{% else %}Assistant: {{ message['content'] }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}Assistant:"
)
#: Where such a model's answer ends: it goes on with the next speaker, or with the markup of a
#: family whose texts it has read.
DIALOGUE_STOPS: Final = (
    *("\n\nUser:", "\n\nAssistant:", "\n\nSystem:", "\n\nHuman:", "\n\n### "),
    *("\nUser:", "\nAssistant:", "\nSystem:", "\nHuman:", "\n### "),
    *("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<start_of_turn>"),
    *("<end_of_turn>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>", "[INST]", "</s>"),
)


def system_role_of(template: str | None) -> SystemRole:
    """Which system messages a chat template takes, by its text.

    One that raises errors is strict about the order of roles too, and takes one at most.
    """
    if template is None:
        return "any"
    drops_system = "system" not in template and _NAMES_USER.search(template)
    if drops_system or _REFUSES_SYSTEM.search(template):
        return "none"
    return "first" if "raise_exception" in template else "any"


_BASE_NAME = re.compile(r"(?<![a-z])(?:base|pretrained|pt)(?![a-z])", re.IGNORECASE)
_CHAT_NAME = re.compile(r"instruct|chat|(?<![a-z])it(?![a-z])|assistant|sft|dpo", re.IGNORECASE)


def load_warning(template: str | None, names: Sequence[str], file_name: str) -> str:
    """What a user should know of a model that was not trained to chat, to follow its name."""
    if template is None:
        return (
            "has no chat template: it is a base model, or its file was converted without one. "
            "It continues a dialogue as text, and may not answer; use a file of an instruct model."
        )
    all_names = " ".join((*names, file_name))
    if _BASE_NAME.search(all_names) and not _CHAT_NAME.search(all_names):
        return (
            "is a base model by its name: it continues texts and may not answer; use a file of an "
            "instruct model."
        )
    return ""


def fit_roles(messages: Sequence[PromptMessage], system_role: SystemRole) -> list[PromptMessage]:
    """Messages as a template with this rule takes them, no word lost; the argument stays as it is.

    System messages that have no place of their own are put before what the person says next. The
    roles alternate then, and begin with the person's.
    """
    if system_role == "any":
        return list(messages)
    fitted: list[PromptMessage] = []
    count = 0
    while system_role == "first" and count < len(messages) and messages[count].role == "system":
        count += 1
    if count:
        fitted.append(_join_messages("system", messages[:count]))
    for message in messages[count:]:
        role = "user" if message.role == "system" else message.role
        if role == "assistant" and (not fitted or fitted[-1].role == "system"):
            fitted.append(PromptMessage("user", _BEGINNING))
        _append_message(fitted, PromptMessage(role, message.content))
    if not fitted or fitted[-1].role == "system":
        fitted = [PromptMessage("user", one.content) for one in fitted]
    return fitted


def _join_messages(role: str, messages: Sequence[PromptMessage]) -> PromptMessage:
    return PromptMessage(role, "\n\n".join(one.content for one in messages))


class _Part(msgspec.Struct):
    type: str
    text: str = ""
    refusal: str = ""


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _ToolCall(msgspec.Struct):
    id: str | None = None
    function: _Function | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_call_id: str | None = None


class PromptMessage(msgspec.Struct):
    """One message as a template takes it: "system", "user" or "assistant", and its text."""

    role: str
    content: str


class Prompt(msgspec.Struct):
    """A call's messages for a template; ``ends_with_tool_result``: the last is a tool's."""

    messages: list[PromptMessage]
    ends_with_tool_result: bool


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool = True


class _Body(msgspec.Struct):
    messages: list[PromptMessage]
    stream: bool = True
    stream_options: _StreamOptions = _StreamOptions()
    # Without progress there is no callback during prefill, and so no way to stop it.
    return_progress: bool = True
    temperature: float | msgspec.UnsetType = msgspec.UNSET
    top_p: float | msgspec.UnsetType = msgspec.UNSET
    max_tokens: int | msgspec.UnsetType = msgspec.UNSET
    frequency_penalty: float | msgspec.UnsetType = msgspec.UNSET
    presence_penalty: float | msgspec.UnsetType = msgspec.UNSET
    seed: int | msgspec.UnsetType = msgspec.UNSET
    stop: list[str] | msgspec.UnsetType = msgspec.UNSET
    response_format: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    logprobs: bool | msgspec.UnsetType = msgspec.UNSET
    top_logprobs: int | msgspec.UnsetType = msgspec.UNSET
    top_k: int | msgspec.UnsetType = msgspec.UNSET
    min_p: float | msgspec.UnsetType = msgspec.UNSET
    typical_p: float | msgspec.UnsetType = msgspec.UNSET
    repeat_penalty: float | msgspec.UnsetType = msgspec.UNSET
    repeat_last_n: int | msgspec.UnsetType = msgspec.UNSET


_messages_decoder = msgspec.json.Decoder(list[_Message])
_encoder = msgspec.json.Encoder()


def prompt_body(  # noqa: PLR0913
    prompt_messages: Sequence[PromptMessage],
    options: Options,
    *,
    escaper: ControlTokenEscaper,
    window: int,
    top_logprobs: int = 0,
    stops: Sequence[str] = (),
) -> bytes:
    """The JSON body for ``handle_chat_completions``; ``window`` is in tokens.

    ``top_logprobs``: the number of likeliest tokens to report at each position. ``stops`` end an
    answer in words besides those of the options. Raises ``InvalidRequestError`` and
    ``ContextLengthExceededError``.
    """
    body = _Body(escape_messages(prompt_messages, escaper=escaper, window=window))
    if top_logprobs:
        body.logprobs, body.top_logprobs = True, top_logprobs
    body = _with_options(body, options)
    if stops and options.text_format is None:
        body.stop = [*(body.stop or ()), *stops]
    return _encoder.encode(body)


def template_body(
    prompt_messages: Sequence[PromptMessage], *, escaper: ControlTokenEscaper, window: int
) -> bytes:
    """The JSON body for ``/apply-template``: messages as ``prompt_body`` escapes them."""
    return _encoder.encode(
        {"messages": escape_messages(prompt_messages, escaper=escaper, window=window)}
    )


def escape_messages(
    prompt_messages: Sequence[PromptMessage], *, escaper: ControlTokenEscaper, window: int
) -> list[PromptMessage]:
    """Messages with control tokens escaped. Raises ``ContextLengthExceededError`` if too long."""
    check_length(
        "The conversation", sum(len(message.content) for message in prompt_messages), window
    )
    return [
        PromptMessage(message.role, escaper.escape(message.content)) for message in prompt_messages
    ]


def check_length(what: str, characters: int, window: int) -> None:
    """Raise ``ContextLengthExceededError`` for so many characters that counting tokens is waste."""
    if characters > window * _CHARACTERS_PER_TOKEN:
        raise ContextLengthExceededError(
            f"{what} is far longer than the {window} tokens that this model can see.", limit=window
        )


def parse_prompt(messages: bytes, few_shot: bytes = b"") -> Prompt:
    """A call's messages in the roles and text that every template knows.

    The ``few_shot`` examples are left out after a tool's result: with them before it, a small
    model greets a person of the examples instead of repeating the result.
    """
    prompt = _parse_prompt(messages)
    return (
        _parse_prompt(remove_few_shot(messages, few_shot))
        if few_shot and prompt.ends_with_tool_result
        else prompt
    )


def remove_few_shot(messages: bytes, few_shot: bytes) -> bytes:
    """The messages without the example turns before them."""
    return messages.replace(few_shot + b",", b"", 1) if few_shot else messages


def _parse_prompt(messages: bytes) -> Prompt:
    try:
        decoded = _messages_decoder.decode(messages)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"The messages cannot be read: {error}.", param="input"
        ) from error
    prompt_messages: list[PromptMessage] = []
    functions: dict[str | None, _Function] = {}
    ends_with_tool_result = False
    for message in decoded:
        role = _ROLES.get(message.role)
        if role is None:
            raise InvalidRequestError(f"There is no role '{message.role}'.", param="input")
        if ends_with_tool_result and role == "assistant" and message.role not in _TOOL_ROLES:
            _append_message(prompt_messages, PromptMessage("user", _FOLLOW_UP_QUESTION))
        for call in message.tool_calls or ():
            if call.function:
                functions[call.id] = call.function
        ends_with_tool_result = message.role in _TOOL_ROLES
        text = _message_text(message)
        if ends_with_tool_result:
            text = f"{_tool_label(message, functions)} says: {_flatten_json(text)}"
        elif not text and role == "assistant":
            continue
        _append_message(prompt_messages, PromptMessage(role, text))
    if ends_with_tool_result:
        _append_message(prompt_messages, PromptMessage("user", _FOLLOW_UP_QUESTION))
    return Prompt(prompt_messages, ends_with_tool_result)


def _tool_label(message: _Message, functions: dict[str | None, _Function]) -> str:
    """The label of a tool's result: its name, with arguments if it was called twice."""
    function = functions.get(message.tool_call_id)
    if function is None:
        return "The tool"
    is_repeated = sum(one.name == function.name for one in functions.values()) > 1
    return f"{function.name} {function.arguments}" if is_repeated else function.name


def _flatten_json(text: str) -> str:
    """A flat JSON object as plain text, which a small model repeats more faithfully."""
    try:
        fields = msgspec.json.decode(text, type=dict[str, str | int | float | bool | None])
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    return ", ".join(f"{name}: {value}" for name, value in fields.items()) or text


def _append_message(prompt_messages: list[PromptMessage], message: PromptMessage) -> None:
    if prompt_messages and prompt_messages[-1].role == message.role and message.role != "system":
        prompt_messages[-1].content += "\n\n" + message.content
    else:
        prompt_messages.append(message)


def _message_text(message: _Message) -> str:
    content = message.content or ""
    if not isinstance(content, str):
        content = "".join(_part_text(part) for part in content)
    return content


_UNREADABLE_PARTS = {"file": "files", "video_url": "videos", "input_audio": "audio"}


def _part_text(part: _Part) -> str:
    if part.type in ("image_url", "input_image", "image"):
        raise ImageInputUnsupportedError("This model reads text only, no images.", param="input")
    if part.type in _UNREADABLE_PARTS:
        raise InvalidRequestError(
            f"This model reads text only, no {_UNREADABLE_PARTS[part.type]}.",
            code="unsupported_parameter",
            param="input",
        )
    return part.text or part.refusal


def _with_options(body: _Body, options: Options) -> _Body:
    if options.temperature is not None:
        body.temperature = max(options.temperature, 0.0)
    if options.top_p is not None:
        body.top_p = min(max(options.top_p, 0.0), 1.0)
    if options.max_output_tokens is not None:
        body.max_tokens = min(max(options.max_output_tokens, 1), _MAX_TOKENS)
    if options.frequency_penalty is not None:
        body.frequency_penalty = options.frequency_penalty
    if options.presence_penalty is not None:
        body.presence_penalty = options.presence_penalty
    if options.seed is not None:
        body.seed = options.seed % _RANDOM_SEED
    if options.extra:
        for field, value in sampling_fields(options.extra)[0].items():
            setattr(body, field, value)
    if stop := [text for text in options.stop if text]:
        body.stop = stop
    if options.text_format is not None:
        body.response_format = _response_format(options.text_format)
        if body.max_tokens is msgspec.UNSET and body.response_format["type"] != "text":
            body.max_tokens = _MAX_JSON_TOKENS
    return body


def _response_format(text_format: dict[str, Any]) -> dict[str, Any]:
    match text_format:
        case {"type": "text" | "json_object" as kind}:
            return {"type": kind}
        case {"type": "json_schema", "schema": dict(schema)}:
            return {"type": "json_schema", "json_schema": {"schema": bound_schema(schema)}}
    raise InvalidRequestError(
        "The text format must be text, json_object, or json_schema with a schema.",
        param="text.format",
    )
