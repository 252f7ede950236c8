"""Message import: messages arrays of other programs as turns of items. Pure functions.

The dialect is that of chat completions, with what its clients make of it: null where
nothing is, ``index`` in tool calls, the Responses API's names for parts, outputs without
ids, the older ``function_call``, and whole message objects of the ``openai`` package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Refusal,
    Role,
    text_of,
)
from antiphon.errors import InvalidRequestError


class ImportedTurn(msgspec.Struct, frozen=True):
    """What was said to a model, and what it answered; either may be empty."""

    input: tuple[Item, ...]
    output: tuple[Item, ...]


class ImportedConversation(msgspec.Struct, frozen=True):
    """A messages array, oldest turn first. ``instructions``: the leading system message's."""

    instructions: str | None
    turns: tuple[ImportedTurn, ...]


_Detail = Literal["auto", "low", "high"]


class _ImageUrl(msgspec.Struct, frozen=True):
    url: str
    detail: _Detail | None = None


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | _ImageUrl | None = None
    detail: _Detail | None = None


_Content = str | list[_Part] | None


class _Function(msgspec.Struct, frozen=True):
    name: str
    #: Some runtimes give an object where the dialect has its text.
    arguments: str | dict[str, Any] = ""


class _Call(msgspec.Struct, frozen=True):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: _Content = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None


#: The field that a part of a type lives by.
_PART_FIELDS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "image_url": "image_url",
    "input_image": "image_url",
}
#: Roles of those who speak to the model; what they say begins a turn.
_INPUT_ROLES: dict[str, Role] = {"user": "user", "system": "system", "developer": "developer"}
_VALIDATION_ERROR = re.compile(
    r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>.*)`)?$", re.DOTALL
)


def import_messages(messages: Sequence[Mapping[str, Any]]) -> ImportedConversation:
    """The turns of a messages array.

    A turn begins with what is said to the model and ends before the next such message
    behind an answer. An array that begins with an answer begins with a turn without
    input. One that ends in messages that nobody answered ends in a turn without output:
    what becomes of it is the caller's to decide. A call without an output stays without;
    an output goes where its call is, even if something was said between them.

    A leading system (or developer) message of text alone becomes the ``instructions``,
    unless it has a name. Raises ``InvalidRequestError`` with the place at fault as ``param``,
    such as ``messages[3].tool_call_id``.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise InvalidRequestError(
            f"Messages come as a list, not as {type(messages).__name__}.",
            code="invalid_type",
            param="messages",
        )
    converted = [
        _convert_message(message, f"messages[{index}]") for index, message in enumerate(messages)
    ]
    instructions = _instructions(converted[0]) if converted else None
    importer = _MessageImporter()
    for index, message in enumerate(converted):
        if index or instructions is None:
            importer.add(message, index)
    return ImportedConversation(instructions, importer.turns())


class _TurnBuilder:
    """A turn that is being read. ``open_calls`` wait for outputs: their names by their ids."""

    def __init__(self) -> None:
        self.input: list[Item] = []
        self.output: list[Item] = []
        self.open_calls: dict[str, str] = {}


class _MessageImporter:
    """Takes messages one after another."""

    def __init__(self) -> None:
        self._turns: list[_TurnBuilder] = []
        self._answered_call_ids: set[str] = set()

    def turns(self) -> tuple[ImportedTurn, ...]:
        return tuple(ImportedTurn(tuple(one.input), tuple(one.output)) for one in self._turns)

    def add(self, message: _Message, index: int) -> None:
        at = f"messages[{index}]"
        if role := _INPUT_ROLES.get(message.role):
            if message.content is None:
                raise InvalidRequestError("The message has no content.", param=f"{at}.content")
            item = Message(role, _content(message, at), message.name)
            if not self._turns or self._turns[-1].output:
                self._turns.append(_TurnBuilder())
            self._turns[-1].input.append(item)
        elif message.role == "assistant":
            self._add_assistant_message(message, index)
        elif message.role in {"tool", "function"}:
            self._add_output(message, at)
        else:
            raise InvalidRequestError(
                f"There is no role {message.role!r}: a message is by system, developer, user, "
                "assistant or tool.",
                param=f"{at}.role",
            )

    def _add_assistant_message(self, message: _Message, index: int) -> None:
        if not self._turns:
            self._turns.append(_TurnBuilder())
        turn = self._turns[-1]
        at = f"messages[{index}]"
        calls = [
            (one.id or f"call_{index}_{number}", one.function, f"{at}.tool_calls[{number}]")
            for number, one in enumerate(message.tool_calls or ())
        ]
        if message.function_call:
            calls.append((f"call_{index}", message.function_call, f"{at}.function_call"))
        content = _content(message, at)
        if message.refusal:
            words = content if not isinstance(content, str) else (OutputText(content),)
            content = (*(words if content else ()), Refusal(message.refusal))
        # A message of calls alone needs no item of its own, but for one right behind
        # another message: that would else be taken for the one that made the calls.
        apart = bool(turn.output) and isinstance(turn.output[-1], Message)
        if content or message.name or not calls or apart:
            turn.output.append(Message("assistant", content, message.name))
        for call_id, function, where in calls:
            if call_id in turn.open_calls:
                raise InvalidRequestError(
                    f"Two tool calls with the id {call_id!r} wait for an output at once.",
                    code="tool_call_duplicate",
                    param=f"{where}.id",
                )
            turn.open_calls[call_id] = function.name
            self._answered_call_ids.discard(call_id)
            turn.output.append(FunctionCall(call_id, function.name, _arguments(function)))

    def _add_output(self, message: _Message, path: str) -> None:
        turn, call_id = self._find_open_call(message, path)
        del turn.open_calls[call_id]
        self._answered_call_ids.add(call_id)
        turn.output.append(FunctionCallOutput(call_id, _content(message, path)))

    def _find_open_call(self, message: _Message, path: str) -> tuple[_TurnBuilder, str]:
        """The call that an output is for, and its turn: by id, by name, or the next in line."""
        given = message.tool_call_id
        for turn in reversed(self._turns):
            for call_id, name in turn.open_calls.items():
                by_name = message.role == "function" and message.name not in {None, name}
                if call_id == given or (not given and not by_name):
                    return turn, call_id
        if not given:
            raise InvalidRequestError(
                "No tool call before this output waits for one.",
                code="tool_call_not_found",
                param=f"{path}.tool_call_id" if message.role == "tool" else path,
            )
        why = (
            "has its output already"
            if given in self._answered_call_ids
            else "comes before this output"
        )
        which = "The tool call" if given in self._answered_call_ids else "No tool call"
        raise InvalidRequestError(
            f"{which} with the id {given!r} {why}.",
            code="tool_call_not_found",
            param=f"{path}.tool_call_id",
        )


def _convert_message(message: object, prefix: str) -> _Message:
    try:
        return msgspec.convert(message, _Message, from_attributes=True)
    except (msgspec.ValidationError, RecursionError) as error:
        match = _VALIDATION_ERROR.match(str(error))
        assert match is not None, "the pattern matches every text"
        what, path = match["what"], match["path"] or ""
        if what.startswith("Object missing required field"):
            path += "." + what.rpartition("field `")[2].rstrip("`")
        code = "invalid_type" if ", got `" in what else "invalid_value"
        raise InvalidRequestError(
            f"Invalid value for '{prefix}{path}': {what[:1].lower()}{what[1:]}.",
            code=code,
            param=prefix + path,
        ) from error


def _instructions(first: _Message) -> str | None:
    if first.role not in {"system", "developer"} or first.name is not None:
        return None
    content = _content(first, "messages[0]")
    return content if isinstance(content, str) and content else None


def _arguments(function: _Function) -> str:
    if isinstance(function.arguments, str):
        return function.arguments
    return msgspec.json.encode(function.arguments).decode()


def _content(message: _Message, path: str) -> str | tuple[Part, ...]:
    """Text alone as a string; parts where there is a picture or a refusal."""
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    parts = tuple(
        _part(part, message.role, f"{path}.content[{number}]")
        for number, part in enumerate(message.content)
    )
    if all(isinstance(part, InputText | OutputText) for part in parts):
        return text_of(parts)
    return parts


def _part(part: _Part, role: str, path: str) -> Part:
    match part:
        case _Part(type="text" | "input_text" | "output_text", text=str(text)):
            return OutputText(text) if role == "assistant" else InputText(text)
        case _Part(type="refusal", refusal=str(refusal)):
            return Refusal(refusal)
        case _Part(type="image_url" | "input_image", image_url=_ImageUrl(url=url, detail=detail)):
            return InputImage(url, detail or part.detail or "auto")
        case _Part(type="image_url" | "input_image", image_url=str(url)):
            return InputImage(url, part.detail or "auto")
    if field := _PART_FIELDS.get(part.type):
        raise InvalidRequestError(
            f"A part of type {part.type!r} has to have its {field}.", param=f"{path}.{field}"
        )
    raise InvalidRequestError(
        f"There is no place for a part of type {part.type!r}: text and images are kept.",
        param=f"{path}.type",
    )
