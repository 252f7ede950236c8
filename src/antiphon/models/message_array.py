"""A messages array, read again by models of other dialects. Pure."""

from __future__ import annotations

import msgspec

from antiphon.core.items import Phase
from antiphon.core.reasoning_sidecar import PHASE_KEY, REASONING_KEY, ReasoningSidecar


class Image(msgspec.Struct, frozen=True):
    url: str
    detail: str = "auto"


class File(msgspec.Struct, frozen=True, omit_defaults=True):
    filename: str | None = None
    file_data: str | None = None
    file_url: str | None = None


class Video(msgspec.Struct, frozen=True):
    url: str


class Part(msgspec.Struct, frozen=True):
    text: str = ""
    image_url: Image | None = None
    file: File | None = None
    video_url: Video | None = None


class Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class Call(msgspec.Struct, frozen=True):
    id: str
    function: Function


class ChatMessage(
    msgspec.Struct, frozen=True, rename={"carried": REASONING_KEY, "phase": PHASE_KEY}
):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    carried: tuple[ReasoningSidecar, ...] = ()
    phase: Phase | None = None


decode_messages = msgspec.json.Decoder(list[ChatMessage]).decode
