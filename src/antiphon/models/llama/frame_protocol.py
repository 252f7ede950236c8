"""What a ``LlamaModel`` and its child process say to each other over two pipes.

A frame is a length (4 bytes, little-endian) and that many bytes of MessagePack.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from antiphon.core.turns import Usage
from antiphon.turn.protocols import Token

_LENGTH = 4


class LoadRequest(msgspec.Struct, frozen=True):
    """What to load and how; ``folder`` is a private, empty one for the child to remove.

    ``primer`` are the example turns that contexts begin with (``ModelInfo.primer``).
    """

    path: str
    slots: int
    context_window: int
    cache_mib: int
    folder: str = ""
    few_shot: str = ""


class _Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class GenerateRequest(_Frame, frozen=True):
    """Continue ``messages``, a JSON array in the chat completions dialect.

    The ``Options`` are JSON too: MessagePack has no integers beyond 64 bits, and users do.
    """

    request_id: int
    messages: bytes
    options: bytes


class CancelRequest(_Frame, frozen=True):
    """Nobody waits for this call any more."""

    request_id: int


class CountRequest(_Frame, frozen=True):
    """How many tokens do these messages have, as ``Ask`` would show them?"""

    request_id: int
    messages: bytes


class TokenizeRequest(_Frame, frozen=True):
    """Say which tokens a text has, by itself."""

    request_id: int
    text: str


class Ready(_Frame, frozen=True):
    """The model is loaded; ``window`` is what one call can see, in tokens."""

    window: int


class LoadFailed(_Frame, frozen=True):
    """The model could not be loaded; the child ends."""

    message: str


class TextChunk(_Frame, frozen=True):
    """More of an answer, or of the thoughts before it."""

    request_id: int
    text: str
    reasoning: str = ""


class ToolCallChunk(_Frame, frozen=True):
    """More of a tool call; ``name`` comes with its first fragment only."""

    request_id: int
    name: str | None
    arguments: str = ""


class TokenizeResult(_Frame, frozen=True):
    """The answer to ``TokenizeRequest``; ``tokens`` None: it cannot be told on this system."""

    request_id: int
    tokens: tuple[Token, ...] | None


class CountResult(_Frame, frozen=True):
    """The answer to ``CountRequest``; ``tokens`` None: they cannot be counted on this system."""

    request_id: int
    tokens: int | None


class GenerateResult(_Frame, frozen=True):
    request_id: int
    reason: Literal["stop", "length", "tool_calls"]
    usage: Usage


class RequestFailed(_Frame, frozen=True):
    """A call failed; the child goes on. ``used`` and ``limit`` are in tokens."""

    request_id: int
    kind: Literal["context", "image", "invalid", "model"]
    message: str
    param: str | None = None
    used: int | None = None
    limit: int | None = None


ToWorker: TypeAlias = GenerateRequest | CancelRequest | CountRequest | TokenizeRequest
FromWorker: TypeAlias = (
    Ready
    | LoadFailed
    | TextChunk
    | ToolCallChunk
    | CountResult
    | TokenizeResult
    | GenerateResult
    | RequestFailed
)

_encoder = msgspec.msgpack.Encoder()
_to_worker_decoder = msgspec.msgpack.Decoder(ToWorker)
_from_worker_decoder = msgspec.msgpack.Decoder(FromWorker)


def encode_frame(frame: ToWorker | FromWorker) -> bytes:
    """The bytes of one frame, length included."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(_LENGTH, "little") + body


def decode_to_worker(body: bytes) -> ToWorker:
    """A frame's content as the child reads it."""
    frame: ToWorker = _to_worker_decoder.decode(body)
    return frame


def decode_from_worker(body: bytes) -> FromWorker:
    """A frame's content as the parent reads it."""
    frame: FromWorker = _from_worker_decoder.decode(body)
    return frame


class FrameSplitter:
    """Cuts a byte stream into frames' contents, wherever its reads were cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The contents that are whole now."""
        buffer = self._buffer
        buffer += data
        bodies = []
        at = 0
        while len(buffer) - at >= _LENGTH:
            end = at + _LENGTH + int.from_bytes(buffer[at : at + _LENGTH], "little")
            if end > len(buffer):
                break
            bodies.append(bytes(buffer[at + _LENGTH : end]))
            at = end
        del buffer[:at]
        return bodies
