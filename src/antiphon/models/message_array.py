"""A messages array, read again by models of other dialects. Pure."""

from __future__ import annotations

import msgspec

from antiphon.core.items import Phase
from antiphon.core.reasoning_sidecar import PHASE_KEY, REASONING_KEY, ReasoningSidecar


class MessageImage(msgspec.Struct, frozen=True):
    url: str
    detail: str = "auto"


class MessageFile(msgspec.Struct, frozen=True, omit_defaults=True):
    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class MessageVideo(msgspec.Struct, frozen=True):
    url: str


class MessagePart(msgspec.Struct, frozen=True):
    text: str = ""
    image_url: MessageImage | None = None
    file: MessageFile | None = None
    video_url: MessageVideo | None = None


class MessageFunction(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class MessageToolCall(msgspec.Struct, frozen=True):
    id: str
    function: MessageFunction


class ChatMessage(
    msgspec.Struct, frozen=True, rename={"reasoning": REASONING_KEY, "phase": PHASE_KEY}
):
    role: str
    content: str | list[MessagePart] | None = None
    name: str | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: tuple[ReasoningSidecar, ...] = ()
    phase: Phase | None = None


decode_messages = msgspec.json.Decoder(list[ChatMessage]).decode
