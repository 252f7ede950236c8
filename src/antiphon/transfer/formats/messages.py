"""Plain messages arrays, in the chat completions dialect or that of the Responses API.

What a client would be told of as an error is skipped here, with a reason.
"""

from __future__ import annotations

from typing import Any, Final

from antiphon.core.items import FunctionCall, InputText, Item, Part, Refusal, Role
from antiphon.transfer.json_fields import (
    Json,
    id_at,
    list_at,
    object_at,
    objects_at,
    text_at,
    time_at,
    to_json_text,
)
from antiphon.transfer.source_chat import (
    FileReader,
    SourceChat,
    SourceChatBuilder,
    SourceMessage,
    image_of_url,
    message_of,
    text_part,
    thought,
    tool_call,
    tool_output,
)

_ROLES: Final[dict[str, Role]] = {
    "user": "user",
    "human": "user",
    "system": "system",
    "developer": "developer",
    "assistant": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "gpt": "assistant",
}
_OUTPUTS: Final = ("tool", "function")


def is_message(value: Any) -> bool:
    """Whether a value is a message by its role."""
    return isinstance(value, dict) and (_role_of(value) in _ROLES or _role_of(value) in _OUTPUTS)


def is_messages(value: Json) -> bool:
    """Whether a value is an object around a messages array."""
    messages = list_at(value, "messages") or list_at(value, "conversations")
    return bool(messages) and is_message(messages[0])


def read_messages(value: Json, read_file: FileReader) -> SourceChat:
    """An object around a messages array as a chat, which has one branch."""
    del read_file
    builder = SourceChatBuilder("messages")
    reader = _MessagesReader(builder)
    messages = list_at(value, "messages") or list_at(value, "conversations")
    for index, message in enumerate(messages):
        if is_message(message):
            reader.add(index, message)
        else:
            builder.skip("an entry that is no message")
    return builder.build(
        id_at(value, "id", "conversation_id", "uuid"),
        text_at(value, "title", "name"),
        current=reader.last,
        created_at=time_at(value, "created_at", "create_time", "created", "timestamp"),
        updated_at=time_at(value, "updated_at", "update_time"),
        model=text_at(value, "model") or None,
        instructions=reader.instructions or text_at(value, "system", "instructions") or None,
    )


def _role_of(message: Json) -> str:
    return text_at(message, "role", "from").lower()


class _MessagesReader:
    """Takes the messages one after another."""

    def __init__(self, builder: SourceChatBuilder) -> None:
        self._builder = builder
        self.last: str | None = None
        self.instructions: str | None = None
        #: Calls that wait for their outputs, by the id that the file has for them.
        self._calls: dict[str, FunctionCall] = {}

    def add(self, index: int, message: Json) -> None:
        role = _role_of(message)
        items = self._items(index, role, message)
        if index == 0 and role in {"system", "developer"} and len(items) == 1:
            self.instructions = self._text(message) or None
            if self.instructions:
                return
        name = f"#{index}"
        self._builder.add(
            SourceMessage(
                name,
                self.last,
                is_input=role not in _OUTPUTS and _ROLES[role] != "assistant",
                items=items,
                created_at=time_at(message, "created_at", "create_time", "timestamp", "date"),
                model=text_at(message, "model") or None,
            )
        )
        self.last = name

    def _items(self, index: int, role: str, message: Json) -> tuple[Item, ...]:
        if role in _OUTPUTS:
            return self._output(index, message)
        known = _ROLES[role]
        items: list[Item] = []
        if known == "assistant":
            items += thought(text_at(message, "reasoning_content", "reasoning", "thinking"))
        items += message_of(known, self._parts(message, known))
        calls = objects_at(message, "tool_calls")
        if function := object_at(message, "function_call"):
            calls = [*calls, {"function": function}]
        for number, call in enumerate(calls):
            function = object_at(call, "function") or object_at(call, "custom") or call
            given = function.get("arguments", function.get("input", function.get("args")))
            made = tool_call(
                f"messages {index} {number} {id_at(call, 'id')}",
                text_at(function, "name"),
                to_json_text(given) if given is not None else "",
            )
            self._calls[id_at(call, "id") or f"{index} {number}"] = made
            items.append(made)
        return tuple(items)

    def _output(self, index: int, message: Json) -> tuple[Item, ...]:
        given = id_at(message, "tool_call_id")
        key = given if given in self._calls else None if given else next(iter(self._calls), None)
        parts = self._parts(message, "user") or [InputText("")]
        if key is not None:
            return (tool_output(self._calls.pop(key), parts),)
        call = tool_call(f"messages {index}", text_at(message, "name") or "tool", "")
        return (call, tool_output(call, parts))

    def _text(self, message: Json) -> str:
        return "\n".join(
            part.text for part in self._parts(message, "user") if isinstance(part, InputText)
        )

    def _parts(self, message: Json, role: Role) -> list[Part]:
        parts: list[Part] = []
        if text := text_at(message, "content", "value", "text"):
            parts.append(text_part(role, text))
        for part in list_at(message, "content"):
            if isinstance(part, str):
                parts.append(text_part(role, part))
            elif isinstance(part, dict):
                parts += self._object_part(part, role)
        if (refusal := text_at(message, "refusal")) and role == "assistant":
            parts.append(Refusal(refusal))
        for data in list_at(message, "images"):
            # Ollama's way: base64 alone.
            if isinstance(data, str) and (image := image_of_url(data, self._builder)):
                parts.append(image)
        return parts

    def _object_part(self, part: Json, role: Role) -> list[Part]:
        if text := text_at(part, "text"):
            return [text_part(role, text)]
        if (refusal := text_at(part, "refusal")) and role == "assistant":
            return [Refusal(refusal)]
        url = text_at(part, "image_url") or text_at(object_at(part, "image_url"), "url")
        source = object_at(part, "source")
        if url or text_at(source, "data", "url"):
            image = image_of_url(url or text_at(source, "data", "url"), self._builder)
            return [image] if image else []
        kind = text_at(part, "type") or "unknown"
        if kind not in {"text", "input_text", "output_text"}:
            self._builder.skip(f"a part of the type {kind[:60]}")
        return []
