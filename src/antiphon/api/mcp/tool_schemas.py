"""Structs as the JSON schemas of tools, and arguments as structs. Pure.

What calling models are told of the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from antiphon.api.common.body import DECODE_ERRORS, invalid_value_error
from antiphon.errors import InvalidRequestError

T = TypeVar("T", bound=msgspec.Struct)

_REF_TEMPLATE = "#/$defs/{name}"


def input_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What a tool takes. Every property has a title, as the field's tools have them."""
    schema = _schema(kind)
    for name, one in schema["properties"].items():
        one["title"] = name.replace("_", " ").title()
    return schema


def output_schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """What a tool's structured result is."""
    return _schema(kind)


def decode_arguments(kind: type[T], arguments: Mapping[str, Any]) -> tuple[T, tuple[str, ...]]:
    """Arguments as a struct, and the names that it has no field for.

    Raises ``InvalidRequestError`` naming the argument at fault.
    """
    known = kind.__struct_fields__
    given = {name: arguments[name] for name in known if name in arguments}
    for name, value in given.items():
        _check_text(name, value)
    try:
        decoded = msgspec.convert(given, kind)
    except DECODE_ERRORS as error:
        raise invalid_value_error(error) from error
    return decoded, tuple(name for name in arguments if name not in given)


def replace_surrogates(text: str) -> str:
    """The text with a question mark for what is no Unicode: it could not be sent on."""
    return text.encode(errors="replace").decode()


def _check_text(name: str, value: object) -> None:
    """Refuse text that is none: nothing could be done with it, not even decoding."""
    texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    try:
        for text in texts:
            if isinstance(text, str):
                text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"Invalid value for '{name}': it holds characters that are not Unicode text.",
            code="invalid_unicode",
            param=name,
        ) from error


def _schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    _, parts = msgspec.json.schema_components([kind], ref_template=_REF_TEMPLATE)
    schema = parts.pop(kind.__name__)
    # Clients want the object itself at the top, not a reference to it.
    schema.pop("title", None)
    schema.pop("description", None)
    return {**schema, "$defs": parts} if parts else schema


INSTRUCTIONS: Final = (
    "antiphon keeps conversations with other models, so that they can be gone on with days"
    " later, from here or from elsewhere. stateful_chat begins one, and goes on with it when"
    " it is given the response_id that the last turn returned. search_conversations finds"
    " what was said; the resources are whole conversations."
)

STATEFUL_CHAT: Final = """\
Talk to a model in a conversation that the server keeps, and go on with it days later.

Leave response_id out to start a new conversation. Keep the response_id of the result: given
back with the next prompt, it continues from exactly there, without sending the history again.
Each turn has an id of its own, and an old one may be continued a second time: that makes a
branch.

Args:
    prompt: What to say in this turn of the conversation
    response_id: The response_id of an earlier turn, to continue from it; or a conversation's id
        (conv_...) to continue at its end
    model: Which model to ask (default grok-4; where there is none of that name, the server's
        own default answers, and a warning says so)
    system_prompt: Instructions for the model, for the whole conversation (only used when
        starting a new one)
    include_reasoning: Return what the model tells of its thinking, too (default False)
    temperature: From 0 (sober) to 2 (wild)
    max_tokens: How long the answer may be

Returns 'content' (the answer), 'response_id' (keep it to continue later), 'status', 'model',
'usage', 'stored_until' (when the conversation expires), 'continued_from', 'warnings', and
'reasoning' if it was asked for.
"""
SYSTEM_PROMPT_IGNORED: Final = (
    "system_prompt was ignored: it is only used when starting a new conversation."
    " Call stateful_chat without response_id to use it."
)
RETRIEVE: Final = (
    "Read one turn of a kept conversation again: its prompt, its answer, how it ended and until"
    " when it is kept."
)
DELETE: Final = (
    "Erase one turn of a kept conversation for good. Turns that continue it stay, and go on"
    " without it."
)
SEARCH: Final = (
    "Find turns of kept conversations by words that were said in them, by people or by models."
    " A result's response_id goes on from that turn with stateful_chat."
)
CHAT: Final = (
    "Ask a model one thing. Nothing is kept, and nothing can be continued: see stateful_chat"
    " for that."
)
CHAT_WITH_REASONING: Final = (
    "Ask a model one thing that takes thinking, and get what it tells of its thoughts too."
    " Nothing is kept."
)
CHAT_WITH_VISION: Final = (
    "Ask a model about images: PNG, JPEG, WebP or GIF. Nothing is kept. URLs are passed on to"
    " the model as they are."
)
LIST_MODELS: Final = "List the models that can be asked by name, and which one is the default."

CONTINUE_NAME: Final = "continue_where_we_left_off"
CONTINUE_TITLE: Final = "Continue where we left off"
CONTINUE: Final = "Show the latest conversations and go on with one of them."
CONTINUE_ABOUT: Final = "Words that were said in it; without any, the latest one is picked."
