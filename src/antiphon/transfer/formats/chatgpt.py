"""ChatGPT's exports: ``mapping`` is a tree of nodes, ``current_node`` the leaf that was shown.

Nodes of the system that nobody saw say nothing. A message with a recipient is a call of a tool,
and a tool's message its output. Images are files of the zip, named after their ids.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from antiphon.core.items import FunctionCall, InputText, Item, Part, Role
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
    image_part,
    message_of,
    text_part,
    thought,
    tool_call,
    tool_output,
)

#: The fields of a content that hold its words, by what it is called in an export.
_TEXT_FIELDS: Final = ("text", "result", "content", "summary")
_ROLES: Final[dict[str, Role]] = {"user": "user", "system": "system", "assistant": "assistant"}
#: What a user wrote about themselves for all chats.
_PROFILES: Final = ("user_editable_context", "model_editable_context")


def is_chatgpt(value: Json) -> bool:
    """Whether a value is a conversation of ChatGPT's."""
    return isinstance(value.get("mapping"), dict)


def read_chatgpt(value: Json, read_file: FileReader) -> SourceChat:
    """A conversation with all its branches."""
    return _ChatGptReader(value, read_file).read()


class _ChatGptReader:
    def __init__(self, value: Json, read_file: FileReader) -> None:
        self._value = value
        self._read_file = read_file
        self._builder = SourceChatBuilder("chatgpt")
        self._profiles: dict[str, None] = {}
        #: By node: a call that its children may answer.
        self._calls: dict[str, FunctionCall] = {}

    def read(self) -> SourceChat:
        value = self._value
        for name, node in _parents_first(object_at(value, "mapping")):
            self._add(name, node)
        return self._builder.build(
            id_at(value, "conversation_id", "id"),
            text_at(value, "title"),
            current=id_at(value, "current_node"),
            created_at=time_at(value, "create_time"),
            updated_at=time_at(value, "update_time"),
            model=text_at(value, "default_model_slug", "model_slug", "model") or None,
            instructions="\n\n".join(self._profiles) or None,
            pinned=bool(value.get("is_starred") or value.get("pinned_time")),
        )

    def _add(self, name: str, node: Json) -> None:
        message = object_at(node, "message")
        author = object_at(message, "author")
        role = text_at(author, "role") or "user"
        parent = id_at(node, "parent")
        items: tuple[Item, ...] = ()
        if message:
            items = self._items(name, parent, role, message)
        metadata = object_at(message, "metadata")
        self._builder.add(
            SourceMessage(
                name,
                parent,
                is_input=role in {"user", "system"},
                items=items,
                created_at=time_at(message, "create_time", "update_time"),
                model=text_at(metadata, "model_slug") or None,
            )
        )

    def _items(self, name: str, parent: str | None, role: str, message: Json) -> tuple[Item, ...]:
        content = object_at(message, "content")
        kind = text_at(content, "content_type")
        metadata = object_at(message, "metadata")
        if kind in _PROFILES:
            self._note_profile(content)
            return ()
        if role == "system":
            self._note_custom_instructions(metadata)
        if kind == "thoughts":
            parts = [
                "\n".join(
                    text for text in (text_at(one, "summary"), text_at(one, "content")) if text
                )
                for one in objects_at(content, "thoughts")
            ]
            return thought(
                *parts, *(text for text in list_at(content, "parts") if isinstance(text, str))
            )
        if kind == "reasoning_recap":
            # "Thought for 8 seconds": what was thought is in the message before.
            return ()
        recipient = text_at(message, "recipient")
        if role == "tool":
            return self._tool_output(name, parent, message)
        if role == "assistant" and recipient not in {"", "all"}:
            return self._tool_call(name, recipient, content)
        known = _ROLES.get(role, "user")
        return message_of(known, self._parts(content, known, metadata))

    def _tool_call(self, name: str, recipient: str, content: Json) -> tuple[Item, ...]:
        text = "\n".join(
            part.text for part in self._parts(content, "user", {}) if isinstance(part, InputText)
        )
        if not text:
            return ()
        arguments = text if _is_object(text) else to_json_text({"input": text})
        call = tool_call(f"chatgpt {name}", recipient, arguments)
        self._calls[name] = call
        return (call,)

    def _tool_output(self, name: str, parent: str | None, message: Json) -> tuple[Item, ...]:
        parts = self._parts(object_at(message, "content"), "user", object_at(message, "metadata"))
        call = self._calls.get(parent or "")
        if call is not None:
            return (tool_output(call, parts or [InputText("")]),)
        if not parts:
            return ()
        # It came unasked, or is the second of one call.
        tool = text_at(object_at(message, "author"), "name") or "tool"
        call = tool_call(f"chatgpt {name}", tool, "{}")
        return (call, tool_output(call, parts))

    def _parts(self, content: Json, role: Role, metadata: Json) -> list[Part]:
        found: list[Part] = []
        for part in list_at(content, "parts"):
            if isinstance(part, str):
                found.append(text_part(role, part))
            elif isinstance(part, dict):
                found += self._object_part(part, role)
        if not found:
            text = text_at(content, *_TEXT_FIELDS)
            title, url = text_at(content, "title"), text_at(content, "url")
            found = [text_part(role, one) for one in (title, url, text) if one]
        images = {id_at(part, "asset_pointer") for part in objects_at(content, "parts")}
        for file in objects_at(metadata, "attachments"):
            self._note_attachment(file, images)
        return found

    def _object_part(self, part: Json, role: Role) -> list[Part]:
        kind = text_at(part, "content_type", "type") or "unknown"
        if kind == "image_asset_pointer":
            pointer = text_at(part, "asset_pointer")
            image = image_part(self._read_file(pointer), pointer, self._builder)
            return [image] if image else []
        if kind == "audio_transcription" or text_at(part, "text"):
            return [text_part(role, text_at(part, "text"))]
        if kind == "tether_browsing_display":
            return [text_part(role, text_at(part, "result", "summary"))]
        self._builder.skip(f"a part of the type {kind[:60]}")
        return []

    def _note_attachment(self, file: Json, images: set[str | None]) -> None:
        name, key = text_at(file, "name") or "?", text_at(file, "id")
        if any(key and key in (pointer or "") for pointer in images):
            return
        self._builder.skip(f"an attached file whose words are not in the export: {name[:60]}")

    def _note_profile(self, content: Json) -> None:
        for field in ("user_profile", "user_instructions", "model_set_context"):
            if text := text_at(content, field):
                self._profiles[text] = None

    def _note_custom_instructions(self, metadata: Json) -> None:
        context = object_at(metadata, "user_context_message_data")
        for field in ("about_user_message", "about_model_message"):
            if text := text_at(context, field):
                self._profiles[text] = None


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return False


def _parents_first(mapping: Json) -> list[tuple[str, Json]]:
    """The nodes, each after its parent where that is there, siblings as ``children`` has them."""
    nodes = {name: node for name, node in mapping.items() if isinstance(node, dict)}
    ordered: dict[str, Json] = {}
    roots = [name for name, node in nodes.items() if id_at(node, "parent") not in nodes]
    # Circles have no root: whoever comes first is theirs.
    for root in (*roots, *nodes):
        waiting = [root]
        while waiting:
            name = waiting.pop()
            if name in ordered:
                continue
            ordered[name] = nodes[name]
            below: list[Any] = list_at(nodes[name], "children")
            waiting += [one for one in below[::-1] if isinstance(one, str) and one in nodes]
    return list(ordered.items())
