"""Deltas: the pieces of a streamed answer, in one form for all model providers.

A model yields batches: all deltas that arrived in one read belong together, so
that they can leave in one write.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec

from antiphon.core.items import Phase
from antiphon.core.provider_fields import ProviderFields
from antiphon.core.turns import Usage

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "content_filter"]


class OutputTextDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the answer. ``logprobs`` are its tokens', in the Responses API's shape."""

    text: str
    logprobs: tuple[Any, ...] = ()


class AnnotationDelta(msgspec.Struct, frozen=True):
    """Where the answer so far has something from, in the Responses API's shape."""

    annotation: dict[str, Any]


class PhaseDelta(msgspec.Struct, frozen=True):
    """What the answer that is being said, or else the next one, is to its turn.

    Of an answer that is being said the first word counts.
    """

    phase: Phase


class ReasoningSummaryDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the reasoning that a model shows before its answer, told in short.

    ``provider_fields`` say how it came, the same in all pieces.
    """

    text: str
    provider_fields: ProviderFields | None = None


class ReasoningTextDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the reasoning as the model thought it."""

    text: str


class EncryptedReasoning(msgspec.Struct, frozen=True):
    """The reasoning so far is whole, and this is what its model will want back of it.

    ``origin`` is that model, as ``core.items.Reasoning`` has it.
    """

    encrypted_content: str
    origin: str


class ProviderFieldsDelta(msgspec.Struct, frozen=True):
    """Fields of the answer or the reasoning so far, or else of what comes next."""

    provider_fields: ProviderFields


class ItemEnd(msgspec.Struct, frozen=True):
    """The answer or reasoning so far is an item of its own: what follows is another."""


class ItemSwitch(msgspec.Struct, frozen=True):
    """The answer or reasoning that is being written pauses, and the one of ``slot`` goes on.

    A new one begins in a slot that has none. A stream begins in slot 0.
    """

    slot: int


class TextCorrection(msgspec.Struct, frozen=True):
    """The whole text of what is being written, where its deltas were not that text.

    ``call_index``: the arguments of that call; None: the answer or reasoning.
    """

    text: str
    call_index: int | None = None


class RefusalTextDelta(msgspec.Struct, frozen=True, gc=False):
    """More of the sentence by which the model declines."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, gc=False):
    """A fragment of one tool call. ``index`` tells the calls of an answer apart.

    ``call_id`` and ``name`` come with the first fragment and may be missing later.
    ``provider_fields`` of all fragments are joined.
    """

    index: int
    call_id: str | None = None
    name: str | None = None
    arguments: str = ""
    provider_fields: ProviderFields | None = None


class ForeignItemDelta(msgspec.Struct, frozen=True):
    """A whole item that only its upstream understands (``core.items.ForeignItem``)."""

    body: dict[str, Any]


class UsageUpdate(msgspec.Struct, frozen=True):
    """The tokens of the whole answer; a later one replaces an earlier one."""

    usage: Usage


class AnsweringModel(msgspec.Struct, frozen=True):
    """The name of the model that answers, where it is not the one that was called."""

    name: str


class Finish(msgspec.Struct, frozen=True):
    """The model is done. A stream that ends without it was cut off."""

    reason: FinishReason


Delta: TypeAlias = (
    OutputTextDelta
    | AnnotationDelta
    | PhaseDelta
    | ReasoningSummaryDelta
    | ReasoningTextDelta
    | EncryptedReasoning
    | ProviderFieldsDelta
    | ItemEnd
    | ItemSwitch
    | TextCorrection
    | RefusalTextDelta
    | ToolCallDelta
    | ForeignItemDelta
    | UsageUpdate
    | AnsweringModel
    | Finish
)
