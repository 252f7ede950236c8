"""Exports of llama.cpp's page: ``conv`` and its ``messages``, a tree by ``parent``."""

from __future__ import annotations

from antiphon.core.items import FunctionCall, InputText, Item, Part, Role
from antiphon.transfer.json_fields import (
    Json,
    decode_json,
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
    attached_text,
    image_of_url,
    message_of,
    text_part,
    thought,
    tool_call,
    tool_output,
)


def is_llama_cpp(value: Json) -> bool:
    """Whether a value is a conversation of llama.cpp's page."""
    return isinstance(value.get("conv"), dict) and isinstance(value.get("messages"), list)


def read_llama_cpp(value: Json, read_file: FileReader) -> SourceChat:
    """A conversation with all its branches. Nothing of it is in another file."""
    del read_file
    conversation = object_at(value, "conv")
    builder = SourceChatBuilder("llama_cpp")
    calls: dict[str, FunctionCall] = {}
    instructions: list[str] = []
    for index, message in enumerate(objects_at(value, "messages")):
        name = id_at(message, "id") or f"#{index}"
        role = text_at(message, "role")
        items: tuple[Item, ...] = ()
        if text_at(message, "type") != "root":
            items = _items(name, message, calls, builder)
        if role == "system" and items and not instructions:
            instructions.append(text_at(message, "content"))
            items = ()
        builder.add(
            SourceMessage(
                name,
                id_at(message, "parent"),
                is_input=role not in {"assistant", "tool"},
                items=items,
                created_at=time_at(message, "timestamp"),
                model=text_at(message, "model") or None,
            )
        )
    return builder.build(
        id_at(conversation, "id"),
        text_at(conversation, "name"),
        current=id_at(conversation, "currNode"),
        updated_at=time_at(conversation, "lastModified"),
        instructions=instructions[0] if instructions else None,
        pinned=bool(conversation.get("pinned")),
    )


def _items(
    name: str, message: Json, calls: dict[str, FunctionCall], builder: SourceChatBuilder
) -> tuple[Item, ...]:
    role = text_at(message, "role")
    known: Role = "assistant" if role == "assistant" else "system" if role == "system" else "user"
    parts: list[Part] = [text_part(known, text_at(message, "content"))]
    for extra in objects_at(message, "extra"):
        parts += _extra_parts(extra, builder)
    if role == "tool":
        call = calls.pop(id_at(message, "toolCallId", "tool_call_id") or "", None)
        output: list[Part] = [
            InputText(part.text) if isinstance(part, InputText) else part for part in parts
        ]
        if call is not None:
            return (tool_output(call, output),)
        call = tool_call(f"llama_cpp {name}", "tool", "")
        return (call, tool_output(call, output))
    items: list[Item] = []
    if known == "assistant":
        items += thought(text_at(message, "reasoningContent", "thinking", "reasoning_content"))
    items += message_of(known, parts)
    for number, one in enumerate(_tool_calls(message)):
        function = object_at(one, "function")
        arguments = to_json_text(function.get("arguments") or {})
        call = tool_call(f"llama_cpp {name} {number}", text_at(function, "name"), arguments)
        calls[id_at(one, "id") or f"{name} {number}"] = call
        items.append(call)
    return tuple(items)


def _tool_calls(message: Json) -> list[Json]:
    """The calls of a message; the page keeps them as the text of their JSON."""
    given = text_at(message, "toolCalls", "tool_calls")
    try:
        found = decode_json(given.encode()) if given else None
    except ValueError:
        found = None
    calls = found if isinstance(found, list) else list_at(message, "toolCalls")
    return [one for one in calls if isinstance(one, dict)]


def _extra_parts(extra: Json, builder: SourceChatBuilder) -> list[Part]:
    kind, name = text_at(extra, "type"), text_at(extra, "name") or "?"
    urls = [text_at(extra, "base64Url")] if kind == "imageFile" else []
    if kind == "pdfFile" and extra.get("processedAsImages"):
        urls = [one for one in list_at(extra, "images") if isinstance(one, str)]
    if urls:
        images = [image_of_url(url, builder) for url in urls]
        return [image for image in images if image]
    if text := text_at(extra, "content"):
        return [attached_text(name, text)]
    builder.skip(f"an attachment of the type {(kind or 'unknown')[:60]}: {name[:60]}")
    return []
