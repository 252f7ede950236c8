"""Source chats: the common form of a chat that was read from a file, a tree of messages. Pure."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from antiphon.core.images import MAX_IMAGE_BYTES, data_url
from antiphon.core.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    Part,
    Reasoning,
    ReasoningText,
    Role,
)
from antiphon.core.urls import is_web_url
from antiphon.errors import InvalidImageError

Source: TypeAlias = Literal[
    "chatgpt", "claude", "open_webui", "librechat", "llama_cpp", "messages", "antiphon"
]
#: The bytes of a file that came with the chats, by the name or id that a message has for it.
#: None: there is no such file.
FileReader: TypeAlias = Callable[[str], bytes | None]

_MAX_NAME: Final = 64
_NOT_IN_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")


class SourceMessage(msgspec.Struct, frozen=True):
    """A message of a tree. ``is_input``: it was said to the model, not by it or a tool.

    ``created_at`` and ``model`` are None where the file does not say.
    """

    id: str
    parent: str | None
    is_input: bool
    items: tuple[Item, ...]
    created_at: float | None = None
    model: str | None = None


class SourceChat(msgspec.Struct, frozen=True):
    """A chat of another program. ``messages``: parents come before their children.

    ``id`` is its own name for the chat, None: it has none. ``current`` is the message that the
    program showed last. ``skipped`` says what of it could not be taken over, and why.
    """

    source: Source
    id: str | None
    title: str | None
    messages: tuple[SourceMessage, ...]
    current: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    model: str | None = None
    instructions: str | None = None
    pinned: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def has_ids(self) -> bool:
        """Whether the chat and all its messages have names of their program's own."""
        return self.id is not None and not any(
            one.id.startswith(MADE_UP_ID) for one in self.messages
        )


#: How the id of a message begins that has none in its file.
MADE_UP_ID: Final = "#"


class SourceChatBuilder:
    """Collects the messages of a chat in the order of its file.

    A message without items leaves no trace but its children, which move up to its parent; so do
    those of a parent that is not there.
    """

    def __init__(self, source: Source) -> None:
        self.source: Source = source
        self._messages: dict[str, SourceMessage] = {}
        self._skipped: Counter[str] = Counter()
        #: By message without items: its nearest ancestor that has some.
        self._nearest: dict[str, str | None] = {}

    def skip(self, reason: str) -> None:
        """Note that something could not be taken over."""
        self._skipped[reason] += 1

    def add(self, message: SourceMessage) -> None:
        """Add a message; a second one of an id is skipped."""
        if message.id in self._messages:
            self.skip("a message whose id another one has")
            return
        self._messages[message.id] = message

    def build(
        self,
        chat_id: str | None,
        title: str | None,
        *,
        current: str | None = None,
        **fields: Any,
    ) -> SourceChat:
        """The chat of the messages; ``fields`` are others of ``SourceChat``."""
        return SourceChat(
            self.source,
            chat_id,
            title or None,
            self._ordered(),
            current=self._nearest_with_items(current),
            skipped=self._reasons(),
            **fields,
        )

    def _reasons(self) -> tuple[str, ...]:
        return tuple(
            reason if count == 1 else f"{reason} ({count} times)"
            for reason, count in self._skipped.items()
        )

    def _nearest_with_items(self, name: str | None) -> str | None:
        """The message itself, or its nearest ancestor that says something."""
        passed: list[str] = []
        found: str | None = None
        while name is not None and name in self._messages and name not in self._nearest:
            if self._messages[name].items:
                found = name
                break
            passed.append(name)
            # Until more is known, so that a circle ends here.
            self._nearest[name] = None
            name = self._messages[name].parent
        if found is None and name is not None:
            found = self._nearest.get(name)
        self._nearest.update(dict.fromkeys(passed, found))
        return found

    def _ordered(self) -> tuple[SourceMessage, ...]:
        """All that say something, parents first, siblings in their order."""
        children: dict[str | None, list[SourceMessage]] = defaultdict(list)
        for message in self._messages.values():
            if message.items:
                parent = self._nearest_with_items(message.parent)
                children[parent].append(msgspec.structs.replace(message, parent=parent))
        ordered: list[SourceMessage] = []
        seen: set[str] = set()
        waiting = children[None][::-1]
        names = iter(self._messages)
        while True:
            while waiting:
                message = waiting.pop()
                if message.id not in seen:
                    seen.add(message.id)
                    ordered.append(message)
                    waiting += children[message.id][::-1]
            # What is left are circles: one is opened at a time.
            name = next(
                (one for one in names if one not in seen and self._messages[one].items), None
            )
            if name is None:
                return tuple(ordered)
            self.skip("the place of a message that is its own ancestor")
            waiting = [msgspec.structs.replace(self._messages[name], parent=None)]


def message_of(role: Role, parts: Sequence[Part]) -> tuple[Item, ...]:
    """A message of parts, those without words left out; nothing where none is left."""
    parts = [part for part in parts if not isinstance(part, InputText | OutputText) or part.text]
    if not parts:
        return ()
    if all(isinstance(part, InputText | OutputText) for part in parts):
        text = "\n".join(part.text for part in parts if isinstance(part, InputText | OutputText))
        return (Message(role, text),)
    return (Message(role, tuple(parts)),)


def text_part(role: Role, text: str) -> Part:
    """A text as a part of a message by that role."""
    return OutputText(text) if role == "assistant" else InputText(text)


def attached_text(name: str, text: str) -> Part:
    """The text of a file that was attached to a message."""
    return InputText(f"--- {name or 'file'} ---\n{text}")


def thought(*texts: str) -> tuple[Item, ...]:
    """What a model thought, as a reasoning item; nothing where it is empty."""
    text = "\n\n".join(text for text in texts if text)
    return (Reasoning(content=(ReasoningText(text),)),) if text else ()


def image_part(data: bytes | None, name: str, builder: SourceChatBuilder) -> Part | None:
    """An image as a part of a message. None: it is none, which is noted."""
    if data is None:
        builder.skip(f"an image that is not in the file: {_shown(name)}")
        return None
    try:
        return InputImage(data_url(data))
    except InvalidImageError as error:
        builder.skip(f"an image that cannot be stored: {_shown(name)}: {error.message}")
        return None


def image_of_url(url: str, builder: SourceChatBuilder) -> Part | None:
    """An image that is given by a URL: data: URLs and those of the web, which nobody fetches."""
    if is_web_url(url):
        return InputImage(url)
    data = decode_data_url(url)
    if data is None:
        builder.skip(f"an image that is not in the file: {_shown(url)}")
        return None
    return image_part(data, url, builder)


def decode_data_url(url: str) -> bytes | None:
    """The bytes of a base64 ``data:`` URL, or of base64 alone; None: it is neither."""
    from binascii import Error, a2b_base64  # loaded on first use

    head, comma, text = url.partition(",")
    if url[:5].lower() == "data:":
        if not comma or not head.lower().endswith(";base64"):
            return None
    else:
        text = url
    if len(text) > MAX_IMAGE_BYTES * 2:
        return None
    try:
        return a2b_base64("".join(text.split()), strict_mode=True) or None
    except (Error, ValueError):
        return None


def tool_call(key: str, name: str, arguments: str) -> FunctionCall:
    """A call of a tool. ``key`` tells it from every other; models are shown a plain name."""
    plain = _NOT_IN_NAME.sub("_", name).strip("_")[:_MAX_NAME] or "tool"
    return FunctionCall(call_id_of(key), plain, arguments or "{}")


def tool_output(call: FunctionCall, parts: Sequence[Part]) -> FunctionCallOutput:
    """The output of a call."""
    if all(isinstance(part, InputText) for part in parts):
        text = "\n".join(part.text for part in parts if isinstance(part, InputText))
        return FunctionCallOutput(call.call_id, text)
    return FunctionCallOutput(call.call_id, tuple(parts))


def call_id_of(key: str) -> str:
    """An id for the call of another program's id, which may be of any form."""
    return "call_" + hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:24]


def _shown(name: str) -> str:
    """A name for a report, on one line and not too long."""
    line = " ".join(name.split())
    return line if len(line) <= _MAX_NAME else line[:_MAX_NAME] + "..."
