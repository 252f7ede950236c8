"""Open WebUI's exports: ``history.messages`` is a tree by id, ``currentId`` the leaf shown.

Reasoning and tool calls are ``<details>`` elements within an answer's text.
"""

from __future__ import annotations

import html
import re
from typing import Final

from antiphon.core.items import InputText, Item, Part, Role
from antiphon.transfer.json_fields import (
    Json,
    id_at,
    list_at,
    object_at,
    objects_at,
    text_at,
    time_at,
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

_DETAILS: Final = re.compile(
    r'<details\s+type="(reasoning|tool_calls)"([^>]*)>(.*?)</details>\n?', re.DOTALL
)
_SUMMARY: Final = re.compile(r"\s*<summary>.*?</summary>\s*", re.DOTALL)
_ATTRIBUTE: Final = re.compile(r'([\w-]+)="([^"]*)"')
_QUOTE: Final = re.compile(r"^(?:&gt;|>) ?", re.MULTILINE)


def is_open_webui(value: Json) -> bool:
    """Whether a value is a chat of Open WebUI's: as a record, or the chat alone."""
    chat = _chat_of(value)
    return isinstance(object_at(chat, "history").get("messages"), dict) or (
        chat is not value and isinstance(chat.get("messages"), list)
    )


def read_open_webui(value: Json, read_file: FileReader) -> SourceChat:
    """A chat with all its branches."""
    chat = _chat_of(value)
    history = object_at(chat, "history")
    builder = SourceChatBuilder("open_webui")
    tree = object_at(history, "messages")
    if tree:
        messages = [(name, one, id_at(one, "parentId")) for name, one in tree.items()]
    else:
        messages = _linear(chat)
    for name, message, parent in messages:
        if not isinstance(message, dict):
            builder.skip("a message that is no object")
            continue
        role = text_at(message, "role")
        builder.add(
            SourceMessage(
                name,
                parent,
                is_input=role not in {"assistant", "tool"},
                items=_items(name, role, message, builder, read_file),
                created_at=time_at(message, "timestamp", "created_at"),
                model=text_at(message, "model") or None,
            )
        )
    models = [one for one in list_at(chat, "models") if isinstance(one, str)]
    return builder.build(
        id_at(value, "id") or id_at(chat, "id"),
        text_at(value, "title") or text_at(chat, "title"),
        current=id_at(history, "currentId") or (messages[-1][0] if messages else None),
        created_at=time_at(value, "created_at") or time_at(chat, "timestamp"),
        updated_at=time_at(value, "updated_at"),
        model=models[0] if models else None,
        instructions=text_at(object_at(chat, "params"), "system")
        or text_at(chat, "system")
        or None,
        pinned=bool(value.get("pinned")),
    )


def _chat_of(value: Json) -> Json:
    return object_at(value, "chat") or value


def _linear(chat: Json) -> list[tuple[str, Json, str | None]]:
    """The messages of a chat without a tree, one after another."""
    found: list[tuple[str, Json, str | None]] = []
    for index, one in enumerate(objects_at(chat, "messages")):
        parent = id_at(one, "parentId") or (found[-1][0] if found else None)
        found.append((id_at(one, "id") or f"#{index}", one, parent))
    return found


def _items(
    name: str, role: str, message: Json, builder: SourceChatBuilder, read_file: FileReader
) -> tuple[Item, ...]:
    known: Role = "assistant" if role == "assistant" else "system" if role == "system" else "user"
    content = text_at(message, "content")
    if not content:
        content = "\n".join(text_at(one, "text") for one in objects_at(message, "content"))
    if role == "tool":
        call = tool_call(f"open_webui {name}", text_at(message, "name") or "tool", "")
        return (call, tool_output(call, [InputText(content)]))
    images = _images(message, builder, read_file)
    if known != "assistant":
        return message_of(known, [text_part(known, content), *images])
    items: list[Item] = [
        *thought(text_at(message, "reasoning_content", "reasoning")),
        *_answer(name, content),
        *message_of(known, images),
    ]
    if error := object_at(message, "error"):
        builder.skip(f"an error in place of an answer: {text_at(error, 'content')[:60]}")
    return tuple(items)


def _answer(name: str, content: str) -> list[Item]:
    """An answer's text with the reasoning and the calls that are written into it."""
    items: list[Item] = []
    at = 0
    for number, found in enumerate(_DETAILS.finditer(content)):
        items += message_of(
            "assistant", [text_part("assistant", content[at : found.start()].strip())]
        )
        at = found.end()
        attributes = {key: html.unescape(it) for key, it in _ATTRIBUTE.findall(found[2])}
        body = html.unescape(_SUMMARY.sub("", found[3]))
        if found[1] == "reasoning":
            items += thought(_QUOTE.sub("", body).strip())
            continue
        call = tool_call(
            f"open_webui {name} {number}",
            attributes.get("name", ""),
            attributes.get("arguments", ""),
        )
        items.append(call)
        result = attributes.get("result") or body.strip()
        if result:
            items.append(tool_output(call, [InputText(result)]))
    rest = content[at:].strip() if at else content
    return [*items, *message_of("assistant", [text_part("assistant", rest)])]


def _images(message: Json, builder: SourceChatBuilder, read_file: FileReader) -> list[Part]:
    parts: list[Part] = []
    for file in objects_at(message, "files"):
        url, name = text_at(file, "url"), text_at(file, "name", "id", "url") or "?"
        media = text_at(file, "content_type") or text_at(object_at(file, "meta"), "content_type")
        if text_at(file, "type") != "image" and not media.startswith("image/"):
            builder.skip(f"an attached file whose words are not in the export: {name[:60]}")
        elif url[:5].lower() == "data:" or url[:4].lower() == "http":
            if image := image_of_url(url, builder):
                parts.append(image)
        elif image := image_part(read_file(url), name, builder):
            parts.append(image)
    for data in list_at(message, "images"):
        if isinstance(data, str) and (image := image_of_url(data, builder)):
            parts.append(image)
    return parts
