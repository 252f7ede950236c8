"""LibreChat's exports: messages with their parents, flat or each within its parent's children."""

from __future__ import annotations

from typing import Any

from antiphon.core.items import InputText, Item, Part, Role
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
    image_part,
    message_of,
    text_part,
    thought,
    tool_call,
    tool_output,
)


def is_librechat(value: Json) -> bool:
    """Whether a value is a conversation of LibreChat's."""
    if isinstance(value.get("messagesTree"), list):
        return True
    first = objects_at(value, "messages")[:1]
    return any("messageId" in one or "isCreatedByUser" in one for one in first)


def read_librechat(value: Json, read_file: FileReader) -> SourceChat:
    """A conversation with all its branches."""
    builder = SourceChatBuilder("librechat")
    messages = _flatten(list_at(value, "messagesTree") or list_at(value, "messages"))
    has_parents = any(parent is not None for _, parent in messages)
    previous: str | None = None
    newest: tuple[float, str] | None = None
    for index, (message, parent) in enumerate(messages):
        name = id_at(message, "messageId", "_id", "id") or f"#{index}"
        created_at = time_at(message, "createdAt", "updatedAt")
        by_user = message.get("isCreatedByUser")
        if not isinstance(by_user, bool):
            by_user = text_at(message, "sender").lower() in {"user", "human"}
        builder.add(
            SourceMessage(
                name,
                parent if has_parents else previous,
                is_input=by_user,
                items=_items(name, message, "user" if by_user else "assistant", builder, read_file),
                created_at=created_at,
                model=text_at(message, "model") or None,
            )
        )
        previous = name
        if newest is None or (created_at or 0.0) >= newest[0]:
            newest = (created_at or 0.0, name)
    options = object_at(value, "options")
    return builder.build(
        id_at(value, "conversationId", "_id"),
        text_at(value, "title") or text_at(options, "title"),
        current=newest[1] if newest else None,
        created_at=time_at(value, "createdAt") or time_at(options, "createdAt"),
        updated_at=time_at(value, "updatedAt") or time_at(options, "updatedAt"),
        model=text_at(options, "model") or text_at(value, "model") or None,
        instructions=text_at(options, "promptPrefix", "system") or None,
    )


def _flatten(tree: list[Any]) -> list[tuple[Json, str | None]]:
    """All messages with their parents' ids, each behind its parent."""
    flat: list[tuple[Json, str | None]] = []
    waiting: list[tuple[Any, str | None]] = [(one, None) for one in reversed(tree)]
    while waiting:
        message, above = waiting.pop()
        if not isinstance(message, dict):
            continue
        flat.append((message, above or id_at(message, "parentMessageId")))
        name = id_at(message, "messageId", "_id", "id")
        waiting += [(one, name) for one in reversed(list_at(message, "children"))]
    return flat


def _items(
    name: str, message: Json, role: Role, builder: SourceChatBuilder, read_file: FileReader
) -> tuple[Item, ...]:
    items: list[Item] = []
    parts: list[Part] = []
    for index, part in enumerate(objects_at(message, "content")):
        kind = text_at(part, "type")
        if kind == "think":
            items += message_of(role, parts) + thought(_words(part, "think"))
            parts = []
        elif kind == "tool_call":
            items += [*message_of(role, parts), *_call(f"librechat {name} {index}", part)]
            parts = []
        elif text := _words(part, "text"):
            parts.append(text_part(role, text))
        elif kind in {"image_url", "image_file"}:
            parts += _image(object_at(part, kind), builder, read_file)
        else:
            builder.skip(f"a part of the type {(kind or 'unknown')[:60]}")
    if not items and not parts and (text := text_at(message, "text", "content")):
        parts.append(text_part(role, text))
    for file in objects_at(message, "files") + objects_at(message, "attachments"):
        parts += _image(file, builder, read_file)
    return (*items, *message_of(role, parts))


def _words(part: Json, field: str) -> str:
    """The text of a part, which is there itself or as an object's ``value``."""
    return text_at(part, field) or text_at(object_at(part, field), "value")


def _call(key: str, part: Json) -> list[Item]:
    given = object_at(part, "tool_call") or part
    function = object_at(given, "function")
    call = tool_call(
        key,
        text_at(given, "name") or text_at(function, "name"),
        to_json_text(given.get("args") or function.get("arguments") or {}),
    )
    output = given.get("output") or function.get("output")
    return [call] if not output else [call, tool_output(call, [InputText(to_json_text(output))])]


def _image(file: Json, builder: SourceChatBuilder, read_file: FileReader) -> list[Part]:
    name = text_at(file, "filename", "file_id") or "?"
    url = text_at(file, "url")
    if url[:5].lower() == "data:" or url[:4].lower() == "http":
        image = image_of_url(url, builder)
        return [image] if image else []
    media = text_at(file, "type")
    if media and not media.startswith("image"):
        builder.skip(f"an attached file whose words are not in the export: {name[:60]}")
        return []
    path = text_at(file, "filepath", "file_id", "filename")
    image = image_part(read_file(path) if path else None, name, builder)
    return [image] if image else []
