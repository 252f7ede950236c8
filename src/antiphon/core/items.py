"""Items: the atoms of context, as they lie in the store.

An item's JSON is compact: a message whose content is one plain text keeps it as a
string, defaults are left out, and ids are derived (``core.ids``). Interfaces show
items in their API's full shape; the shape here is what is written to disk.
Field names and meanings are those of the Open Responses specification.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

Role: TypeAlias = Literal["user", "assistant", "system", "developer"]
ItemStatus: TypeAlias = Literal["completed", "incomplete"]


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class InputText(_Part, frozen=True, tag="input_text"):
    text: str


class InputImage(_Part, frozen=True, tag="input_image"):
    """``image_url`` is an ``https:`` or a ``data:`` URL; the server fetches neither.

    In the store it is ``blob:`` and the hash of what a ``data:`` URL held (``core.images``).
    """

    image_url: str
    detail: Literal["auto", "low", "high"] = "auto"


class OutputText(_Part, frozen=True, tag="output_text"):
    text: str
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()


class Refusal(_Part, frozen=True, tag="refusal"):
    refusal: str


class SummaryText(_Part, frozen=True, tag="summary_text"):
    text: str


Part: TypeAlias = InputText | InputImage | OutputText | Refusal


class _Item(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class Message(_Item, frozen=True, tag="message"):
    """``content`` is a string, or parts where a string would lose something."""

    role: Role
    content: str | tuple[Part, ...]
    name: str | None = None
    status: ItemStatus = "completed"


class FunctionCall(_Item, frozen=True, tag="function_call"):
    """``arguments`` is the text that the model wrote, valid JSON or not."""

    call_id: str
    name: str
    arguments: str
    status: ItemStatus = "completed"


class FunctionCallOutput(_Item, frozen=True, tag="function_call_output"):
    call_id: str
    output: str | tuple[Part, ...]
    status: ItemStatus = "completed"


class Reasoning(_Item, frozen=True, tag="reasoning"):
    summary: tuple[SummaryText, ...] = ()
    encrypted_content: str | None = None
    status: ItemStatus = "completed"


class Compaction(_Item, frozen=True, tag="compaction"):
    """What a model wrote down of older turns, shown in their place.

    ``kept`` turns of the chain right before it stay in view; ``replaced`` is how many
    turns before those it stands for. They stay in the store: where one of them is
    erased later, the rest is shown again and this is not (``turn.context``).
    """

    summary: str
    kept: int = 0
    replaced: int = 0


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput | Reasoning | Compaction

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Item)


def encode_item(item: Item) -> bytes:
    """An item's stored bytes."""
    return _encoder.encode(item)


def decode_item(data: bytes) -> Item:
    """The reverse of ``encode_item``."""
    item: Item = _decoder.decode(data)
    return item


def item_kind(item: Item) -> str:
    """The item's ``type``, e.g. ``"message"``."""
    return str(item.__struct_config__.tag)


def text_of(content: str | tuple[Part, ...]) -> str:
    """The plain text of a content; images and refusals add nothing."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, InputText | OutputText))


def words_of(content: str | tuple[Part, ...]) -> str:
    """All words of a content: its text, and its refusals too."""
    if isinstance(content, str):
        return content
    return "".join(
        part.refusal if isinstance(part, Refusal) else text_of((part,)) for part in content
    )


def said(item: Item) -> str:
    """What a message says to its reader, a refusal included; nothing for other items."""
    return words_of(item.content) if isinstance(item, Message) else ""


def has_image(item: Item) -> bool:
    """Whether the model would have to look at a picture."""
    match item:
        case Message(content=content) | FunctionCallOutput(output=content):
            return not isinstance(content, str) and any(
                isinstance(part, InputImage) for part in content
            )
    return False
