"""Worker protocol: the frames that a ``LlamaModel`` and its worker process exchange over pipes.

A frame is a length (4 bytes, little-endian) and that many bytes of MessagePack. llama.cpp's
own HTTP server is a second protocol, used inside the worker for its tokenizer only
(``tokenizer_client``): over it alone there would be no load errors, no end with the parent's
pipe, and on Windows no private socket at all.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from antiphon.core.turns import Usage
from antiphon.turn.protocols import Token

_LENGTH = 4


class LoadRequest(msgspec.Struct, frozen=True):
    """What to load and how; ``folder`` is a private, empty one that the worker removes.

    ``few_shot`` are the example turns that contexts begin with (``ModelInfo.few_shot``).
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
    """Cancel a call: its caller has stopped reading."""

    request_id: int


class CountRequest(_Frame, frozen=True):
    """Count the tokens of messages, as ``GenerateRequest`` would render them."""

    request_id: int
    messages: bytes


class TokenizeRequest(_Frame, frozen=True):
    """Tokenize a text by itself."""

    request_id: int
    text: str


class Ready(_Frame, frozen=True):
    """The model is loaded; ``window`` is a call's context window, in tokens.

    ``warning``: what its user should know of it, as a sentence.
    """

    window: int
    warning: str = ""


class LoadFailed(_Frame, frozen=True):
    """The model could not be loaded; the worker ends."""

    message: str


class TextChunk(_Frame, frozen=True):
    """More of an answer, or of the reasoning before it."""

    request_id: int
    text: str
    reasoning: str = ""


class ToolCallChunk(_Frame, frozen=True):
    """More of a tool call; ``name`` comes with its first fragment only."""

    request_id: int
    name: str | None
    arguments: str = ""


class TokenizeResult(_Frame, frozen=True):
    """The answer to ``TokenizeRequest``; ``tokens`` None: this system has no tokenizer socket."""

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
    """A call failed; the worker goes on. ``used`` and ``limit`` are in tokens."""

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
    """A frame's content as the worker reads it."""
    frame: ToWorker = _to_worker_decoder.decode(body)
    return frame


def decode_from_worker(body: bytes) -> FromWorker:
    """A frame's content as the parent reads it."""
    frame: FromWorker = _from_worker_decoder.decode(body)
    return frame


class FrameSplitter:
    """Splits a byte stream into frames' contents, independent of read boundaries."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The contents of the frames that are complete."""
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
