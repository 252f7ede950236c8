"""Items: messages, calls, outputs, reasoning and summaries, in the form that is stored.

An item's JSON is compact: a message whose content is one plain text keeps it as a
string, defaults are left out, and ids are derived (``core.ids``). Interfaces show
items in their API's full shape; the shape here is what is written to disk.
Field names and meanings are those of the Open Responses specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from antiphon.core.provider_fields import ProviderFields, seal_fields, unseal_fields
from antiphon.errors import StoreError

Role: TypeAlias = Literal["user", "assistant", "system", "developer"]
ItemStatus: TypeAlias = Literal["completed", "incomplete"]
#: What an assistant's message is to its turn: said on the way, or its answer.
Phase: TypeAlias = Literal["commentary", "final_answer"]
#: How closely a model looks at an image.
ImageDetail: TypeAlias = Literal["auto", "low", "high", "original"]


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class InputText(_Part, frozen=True, tag="input_text"):
    text: str


class InputImage(_Part, frozen=True, tag="input_image"):
    """``image_url`` is an ``https:`` or a ``data:`` URL; the server fetches neither.

    In the store it is ``blob:`` and the hash of what a ``data:`` URL held (``core.images``).
    """

    image_url: str
    detail: ImageDetail = "auto"


class InputFile(_Part, frozen=True, tag="input_file"):
    """A document. ``file_data`` is a ``data:`` URL or base64; nothing is fetched."""

    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class InputVideo(_Part, frozen=True, tag="input_video"):
    """``video_url`` is passed on as it is; nothing is fetched."""

    video_url: str


class AudioData(msgspec.Struct, frozen=True):
    """A recording: base64, and its format, such as ``wav``."""

    data: str
    format: str


class InputAudio(_Part, frozen=True, tag="input_audio"):
    """A recording for the model to listen to."""

    input_audio: AudioData


class OutputText(_Part, frozen=True, tag="output_text"):
    text: str
    annotations: tuple[Any, ...] = ()
    logprobs: tuple[Any, ...] = ()


class Refusal(_Part, frozen=True, tag="refusal"):
    refusal: str


class SummaryText(_Part, frozen=True, tag="summary_text"):
    text: str


class ReasoningText(_Part, frozen=True, tag="reasoning_text"):
    """What a model thought, as it thought it."""

    text: str


Part: TypeAlias = (
    InputText | InputImage | InputFile | InputVideo | InputAudio | OutputText | Refusal
)


class _Item(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    pass


class Message(_Item, frozen=True, tag="message"):
    """``content`` is a string, or parts where a string would lose something.

    ``phase`` is only an assistant's, where its model tells: it wants to be told again, and
    ``provider_fields`` too.
    """

    role: Role
    content: str | tuple[Part, ...]
    name: str | None = None
    status: ItemStatus = "completed"
    phase: Phase | None = None
    provider_fields: ProviderFields | None = None


class FunctionCall(_Item, frozen=True, tag="function_call"):
    """``arguments`` is the text that the model wrote, valid JSON or not.

    ``server`` is the label of the MCP server whose tool it is, None: a plain function.
    ``namespace`` is the client's name for the group that the tool is in. ``is_custom``: the tool
    takes one text, which ``arguments`` is.
    ``provider_fields`` came with the call, and go back with it.
    """

    call_id: str
    name: str
    arguments: str
    status: ItemStatus = "completed"
    server: str | None = None
    provider_fields: ProviderFields | None = None
    namespace: str | None = None
    is_custom: bool = False


class ApprovedCall(msgspec.Struct, frozen=True, omit_defaults=True):
    """A call of an earlier turn that a person has agreed to since.

    ``request_id`` is the id of the approval request, as interfaces show it.
    """

    request_id: str
    call: FunctionCall


class FunctionCallOutput(_Item, frozen=True, tag="function_call_output"):
    """``is_error``: an MCP server reports that its tool failed, and ``output`` how.

    ``approved_call`` is the call where it is not one of the same turn: the output of an MCP
    server's tool is shown together with its call. ``is_custom`` as in the call.
    """

    call_id: str
    output: str | tuple[Part, ...]
    status: ItemStatus = "completed"
    is_error: bool = False
    approved_call: ApprovedCall | None = None
    is_custom: bool = False


class Reasoning(_Item, frozen=True, tag="reasoning"):
    """``encrypted_content`` means something only to the model that made it.

    ``origin`` is that model: its upstream's host and its name there. None: nobody knows.
    ``provider_fields`` say how the text came, and what came with it.
    """

    summary: tuple[SummaryText, ...] = ()
    content: tuple[ReasoningText, ...] = ()
    encrypted_content: str | None = None
    status: ItemStatus = "completed"
    origin: str | None = None
    provider_fields: ProviderFields | None = None

    @property
    def text(self) -> str:
        """What is shown of it: its summary, or else the thoughts themselves."""
        return "".join(part.text for part in self.summary or self.content)

    @property
    def sealed(self) -> str | None:
        """What a client that stores nothing here sends back, for the model that made it."""
        if self.encrypted_content is None and self.provider_fields is not None:
            return seal_fields(self.provider_fields)
        return self.encrypted_content

    def unsealed(self) -> Reasoning:
        """The item as it was before it was ``sealed``."""
        fields = unseal_fields(self.encrypted_content or "")
        if fields is None:
            return self
        return msgspec.structs.replace(self, encrypted_content=None, provider_fields=fields)


class Compaction(_Item, frozen=True, tag="compaction"):
    """What a model wrote down of older turns, shown in their place.

    ``retained_turns`` of the chain right before it stay in the context; ``replaced_turns`` is how
    many turns before those it stands for. They stay in the store: where one of them is erased
    later, or an item of it, this goes with it and the rest is shown again. It is a turn of its
    own, or an output of the turn that it was made for.

    ``replaced_items``: it stands for so many of the first items of its own turn instead.
    """

    summary: str
    retained_turns: int = 0
    replaced_turns: int = 0
    replaced_items: int = 0


class McpListTools(_Item, frozen=True, tag="mcp_list_tools"):
    """What an MCP server offers: each tool as ``{name, description, input_schema, annotations}``.

    ``error`` is a sentence where it could not be asked.
    """

    server_label: str
    tools: tuple[dict[str, Any], ...] = ()
    error: str | None = None


class McpApproval(_Item, frozen=True, tag="mcp_approval_response"):
    """A person's word on a call that waited for it: ``approval_request_id`` names it."""

    approval_request_id: str
    approve: bool
    reason: str | None = None


class ForeignItem(_Item, frozen=True, tag="foreign"):
    """An item that only its own server understands, e.g. a ``web_search_call``.

    ``body`` is its JSON, with its own ``type`` and ``id``.
    """

    body: dict[str, Any]

    @property
    def type(self) -> str:
        """The type that its server gave it."""
        return str(self.body.get("type") or "item")


class ErasedItem(_Item, frozen=True, tag="erased"):
    """Where an item was until it was deleted: the others keep their places, and so their ids.

    ``is_summary``: it was a ``Compaction`` of turns of which something was deleted.
    """

    is_summary: bool = False


Item: TypeAlias = (
    Message
    | FunctionCall
    | FunctionCallOutput
    | Reasoning
    | Compaction
    | McpListTools
    | McpApproval
    | ForeignItem
    | ErasedItem
)

_CUSTOM_KINDS: Final[dict[type, str]] = {
    FunctionCall: "custom_tool_call",
    FunctionCallOutput: "custom_tool_call_output",
}

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Item)


def encode_item(item: Item) -> bytes:
    """An item's stored bytes."""
    return _encoder.encode(item)


def decode_item(data: bytes) -> Item:
    """The reverse of ``encode_item``. Raises ``StoreError``: the bytes are not what was stored."""
    try:
        item: Item = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, TypeError) as error:
        raise StoreError("A stored item is damaged: restore the database from a backup.") from error
    return item


#: What a store puts in an item's place, and in that of a summary that tells of it.
ERASED_ITEM: Final = encode_item(ErasedItem())
ERASED_SUMMARY_ITEM: Final = encode_item(ErasedItem(is_summary=True))
#: How a stored compaction begins.
COMPACTION_PREFIX: Final = b'{"type":"compaction"'


def is_summary(data: bytes) -> bool:
    """Whether an item, as it is stored, stands for others: of its turn, or older turns."""
    if not data.startswith(COMPACTION_PREFIX):
        return False
    item = decode_item(data)
    return isinstance(item, Compaction) and (item.replaced_turns or item.replaced_items) != 0


def replaces_turns(item: Item) -> bool:
    """Whether an item stands for older turns of its chain, or did until it was erased."""
    if isinstance(item, ErasedItem):
        return item.is_summary
    return isinstance(item, Compaction) and item.replaced_turns != 0


def open_calls(items: Iterable[Item]) -> tuple[FunctionCall, ...]:
    """The calls among items that have no output there, in order."""
    waiting: dict[str, FunctionCall] = {}
    for item in items:
        if isinstance(item, FunctionCall):
            waiting[item.call_id] = item
        elif isinstance(item, FunctionCallOutput):
            waiting.pop(item.call_id, None)
    return tuple(waiting.values())


def item_kind(item: Item) -> str:
    """The item's ``type``, e.g. ``"message"``; a foreign item's own."""
    if isinstance(item, ForeignItem):
        return item.type
    if isinstance(item, FunctionCall | FunctionCallOutput) and item.is_custom:
        return _CUSTOM_KINDS[type(item)]
    return str(item.__struct_config__.tag)


def text_of(content: str | tuple[Part, ...]) -> str:
    """The plain text of a content; images and refusals add nothing."""
    if isinstance(content, str):
        return content
    return "".join(part.text for part in content if isinstance(part, InputText | OutputText))


def text_and_refusals_of(content: str | tuple[Part, ...]) -> str:
    """All words of a content: its text, and its refusals too."""
    if isinstance(content, str):
        return content
    return "".join(
        part.refusal if isinstance(part, Refusal) else text_of((part,)) for part in content
    )


def shorten(text: str, max_length: int = 80) -> str:
    """The text on one line, truncated to ``max_length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= max_length else line[: max_length - 3] + "..."


def message_text(item: Item) -> str:
    """What a message says to its reader, a refusal included; nothing for other items."""
    return text_and_refusals_of(item.content) if isinstance(item, Message) else ""


def has_image(item: Item) -> bool:
    """Whether the model would have to look at a picture."""
    if isinstance(item, Message):
        content = item.content
    elif isinstance(item, FunctionCallOutput):
        content = item.output
    else:
        return False
    return not isinstance(content, str) and any(isinstance(part, InputImage) for part in content)


def item_lines(item: Item) -> Iterable[tuple[str, str]]:
    """What an item says to a reader, each text with its speaker; thoughts are left out."""
    match item:
        case Message(role=role, content=content):
            yield role, _readable(content)
        case FunctionCall(name=name, arguments=arguments):
            yield "call", f"{name}({arguments})"
        case FunctionCallOutput(output=output):
            yield "output", _readable(output)
        case Compaction(summary=summary):
            yield "summary of what was before", summary


def _readable(content: str | tuple[Part, ...]) -> str:
    """The words of a content, with a mark where something else was."""
    if isinstance(content, str):
        return content
    return "\n\n".join(filter(None, map(_readable_part, content)))


def _readable_part(part: Part) -> str:
    match part:
        case InputImage():
            return "[image]"
        case InputFile(filename=name):
            return f"[file {name}]" if name else "[file]"
        case InputVideo():
            return "[video]"
        case InputAudio():
            return "[audio]"
    return text_and_refusals_of((part,))
