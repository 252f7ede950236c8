"""Import frames: what the process that reads an export file sends to the one that stores it. Pure.

A frame is its length in four bytes and MessagePack. The turns of a chat come first, in frames of
bounded size, and then the chat without them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from antiphon.transfer.chat_file import SkippedFile
from antiphon.transfer.chat_preparation import PreparedChat, ReadyChat, RefusedChat
from antiphon.turn.transfer_protocols import TurnImport

LENGTH: Final = struct.Struct(">I")
#: Turns come in frames of so many at most, and so many bytes unless one turn has more.
_MAX_TURNS: Final = 32
_MAX_BYTES: Final = 1 << 18


class Turns(msgspec.Struct, frozen=True, tag=True):
    """Turns of the chat that comes next."""

    turns: list[TurnImport]


class Chat(msgspec.Struct, frozen=True, tag=True):
    """A chat, and how much of the file was read with it, from 0 to 1."""

    chat: ReadyChat
    progress: float


class EndOfFile(msgspec.Struct, frozen=True, tag=True):
    """All was read."""

    skipped_files: list[SkippedFile]


class UnsupportedFile(msgspec.Struct, frozen=True, tag=True):
    """The file is no export file: the error for its sender."""

    message: str
    code: str | None


class Crash(msgspec.Struct, frozen=True, tag=True):
    """Reading failed; where it did, without a word of the file."""

    traceback: str


Frame: TypeAlias = Turns | Chat | EndOfFile | UnsupportedFile | Crash

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode


def encode_frame(frame: Frame) -> bytes:
    body = _encode(frame)
    return LENGTH.pack(len(body)) + body


def decode_frame(body: bytes) -> Frame:
    """A frame by what follows its length."""
    frame: Frame = _decode(body)
    return frame


def chat_frames(chat: ReadyChat, progress: float) -> Iterator[bytes]:
    """A chat as frames. Raises what keeps it from being encoded."""
    if isinstance(chat, RefusedChat):
        yield encode_frame(Chat(chat, progress))
        return
    turns: list[TurnImport] = []
    size = 0
    for turn in chat.request.turns:
        length = sum(map(len, (*turn.input, *turn.output)))
        length += sum(len(blob.data) for blob in turn.blobs)
        if turns and (len(turns) == _MAX_TURNS or size + length > _MAX_BYTES):
            yield encode_frame(Turns(turns))
            turns, size = [], 0
        turns.append(turn)
        size += length
    yield encode_frame(Turns(turns))
    yield encode_frame(Chat(_replace(chat, "", []), progress))


def whole_chat(tenant: str, chat: ReadyChat, turns: list[TurnImport]) -> ReadyChat:
    """A tenant's chat of a frame, with the turns of the frames before it."""
    return chat if isinstance(chat, RefusedChat) else _replace(chat, tenant, turns)


def _replace(chat: PreparedChat, tenant: str, turns: list[TurnImport]) -> PreparedChat:
    replace = msgspec.structs.replace
    return replace(chat, request=replace(chat.request, tenant=tenant, turns=turns))
