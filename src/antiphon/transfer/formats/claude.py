"""Claude's exports: ``chat_messages`` with their parents, each of content blocks.

Attachments hold the words that were taken from a file; other files are only named.
"""

from __future__ import annotations

from typing import Final

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
    attached_text,
    image_of_url,
    image_part,
    message_of,
    text_part,
    thought,
    tool_call,
    tool_output,
)

_IMAGE_KINDS: Final = ("image", "blob")


def is_claude(value: Json) -> bool:
    """Whether a value is a conversation of Claude's."""
    return isinstance(value.get("chat_messages"), list)


def read_claude(value: Json, read_file: FileReader) -> SourceChat:
    """A conversation with all its branches."""
    builder = SourceChatBuilder("claude")
    messages = objects_at(value, "chat_messages")
    has_parents = any(id_at(one, "parent_message_uuid") for one in messages)
    previous: str | None = None
    newest: tuple[float, str] | None = None
    for index, message in enumerate(messages):
        name = id_at(message, "uuid", "id") or f"#{index}"
        created_at = time_at(message, "created_at", "updated_at")
        builder.add(
            SourceMessage(
                name,
                id_at(message, "parent_message_uuid") if has_parents else previous,
                is_input=text_at(message, "sender", "role") not in {"assistant", "model"},
                items=_ClaudeMessageReader(message, name, builder, read_file).items(),
                created_at=created_at,
                model=text_at(message, "model") or None,
            )
        )
        previous = name
        if newest is None or (created_at or 0.0) >= newest[0]:
            newest = (created_at or 0.0, name)
    return builder.build(
        id_at(value, "uuid", "id"),
        text_at(value, "name", "title"),
        current=id_at(value, "current_leaf_message_uuid") or (newest[1] if newest else None),
        created_at=time_at(value, "created_at"),
        updated_at=time_at(value, "updated_at"),
        model=text_at(value, "model") or None,
        pinned=bool(value.get("is_starred")),
    )


class _ClaudeMessageReader:
    """One message: its blocks in their order, text between calls as messages of their own."""

    def __init__(
        self, message: Json, name: str, builder: SourceChatBuilder, read_file: FileReader
    ) -> None:
        self._message = message
        self._name = name
        self._builder = builder
        self._read_file = read_file
        sender = text_at(message, "sender", "role")
        self._role: Role = "assistant" if sender in {"assistant", "model"} else "user"
        self._items: list[Item] = []
        self._parts: list[Part] = []
        #: Calls that wait, by the id of their block.
        self._calls: dict[str, FunctionCall] = {}

    def items(self) -> tuple[Item, ...]:
        blocks = objects_at(self._message, "content")
        for index, block in enumerate(blocks):
            self._add_block(index, block)
        if not blocks and (text := text_at(self._message, "text", "content")):
            self._parts.append(text_part(self._role, text))
        for attachment in objects_at(self._message, "attachments"):
            self._add_attachment(attachment)
        names = {text_at(one, "file_name") for one in objects_at(self._message, "attachments")}
        for field in ("files", "files_v2"):
            for file in objects_at(self._message, field):
                self._add_file(file, names)
        self._flush()
        return tuple(self._items)

    def _add_block(self, index: int, block: Json) -> None:
        kind = text_at(block, "type")
        key = id_at(block, "id", "tool_use_id") or f"{index}"
        if kind == "text" or (not kind and text_at(block, "text")):
            self._parts.append(text_part(self._role, text_at(block, "text")))
        elif kind in {"thinking", "redacted_thinking"}:
            self._flush()
            self._items += thought(text_at(block, "thinking", "text"))
        elif kind in {"tool_use", "server_tool_use", "mcp_tool_use"}:
            self._flush()
            arguments = to_json_text(block.get("input") or {})
            call = tool_call(f"claude {self._name} {key}", text_at(block, "name"), arguments)
            self._calls[key] = call
            self._items.append(call)
        elif kind in {"tool_result", "mcp_tool_result"} or kind.endswith("_tool_result"):
            self._flush()
            self._add_result(index, block)
        elif kind == "image":
            self._add_image(object_at(block, "source"))
        elif kind != "token_budget":
            self._builder.skip(f"a block of the type {kind[:60] or 'unknown'}")

    def _add_result(self, index: int, block: Json) -> None:
        call = self._calls.pop(id_at(block, "tool_use_id") or "", None)
        if call is None and not id_at(block, "tool_use_id") and self._calls:
            call = self._calls.pop(next(iter(self._calls)))
        if call is None:
            # Its call is not in the export.
            call = tool_call(f"claude {self._name} {index}", text_at(block, "name") or "tool", "")
            self._items.append(call)
        self._items.append(tool_output(call, self._result_parts(block) or [InputText("")]))

    def _result_parts(self, block: Json) -> list[Part]:
        if text := text_at(block, "content", "text"):
            return [InputText(text)]
        parts: list[Part] = []
        for one in list_at(block, "content"):
            if isinstance(one, str):
                parts.append(InputText(one))
            elif isinstance(one, dict) and (text := text_at(one, "text", "title", "content")):
                url = text_at(one, "url")
                parts.append(InputText(f"{text}\n{url}" if url else text))
            elif isinstance(one, dict):
                kind = text_at(one, "type") or "unknown"
                self._builder.skip(f"a part of a tool's result of the type {kind[:60]}")
        return parts

    def _add_image(self, source: Json) -> None:
        if data := text_at(source, "data"):
            image = image_of_url(data, self._builder)
        else:
            name = text_at(source, "file_uuid", "url") or "?"
            image = image_part(self._read_file(name), name, self._builder)
        if image:
            self._parts.append(image)

    def _add_attachment(self, attachment: Json) -> None:
        name = text_at(attachment, "file_name")
        if text := text_at(attachment, "extracted_content"):
            self._parts.append(attached_text(name, text))
        else:
            self._builder.skip(
                f"an attached file whose words are not in the export: {name[:60] or '?'}"
            )

    def _add_file(self, file: Json, attached: set[str]) -> None:
        name = text_at(file, "file_name")
        data = None
        for key in (text_at(file, "file_uuid", "uuid"), name):
            data = data or (self._read_file(key) if key else None)
        if data is not None and text_at(file, "file_kind") in {"", *_IMAGE_KINDS}:
            if image := image_part(data, name, self._builder):
                self._parts.append(image)
        elif name not in attached:
            attached.add(name)
            self._builder.skip(f"a file that is not in the export: {name[:60] or '?'}")

    def _flush(self) -> None:
        """End the message that the parts so far are."""
        self._items += message_of(self._role, self._parts)
        self._parts = []
