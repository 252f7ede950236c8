"""What a ``LlamaModel`` and its child process say to each other over two pipes.

A frame is a length (4 bytes, little-endian) and that many bytes of MessagePack.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from antiphon.core.turns import Usage
from antiphon.turn.protocols import Token

_LENGTH = 4


class Wish(msgspec.Struct, frozen=True):
    """What to load and how; ``folder`` is a private, empty one for the child to remove.

    ``primer`` are the example turns that contexts begin with (``ModelInfo.primer``).
    """

    path: str
    slots: int
    context: int
    cache_mib: int
    folder: str = ""
    primer: str = ""


class _Frame(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Ask(_Frame, frozen=True):
    """Continue ``messages``, a JSON array in the chat completions dialect.

    The ``Options`` are JSON too: MessagePack has no integers beyond 64 bits, and users do.
    """

    call: int
    messages: bytes
    options: bytes


class Drop(_Frame, frozen=True):
    """Nobody waits for this call any more."""

    call: int


class Count(_Frame, frozen=True):
    """How many tokens do these messages have, as ``Ask`` would show them?"""

    call: int
    messages: bytes


class Split(_Frame, frozen=True):
    """Say which tokens a text has, by itself."""

    call: int
    text: str


class Ready(_Frame, frozen=True):
    """The model is loaded; ``window`` is what one call can see, in tokens."""

    window: int


class Broken(_Frame, frozen=True):
    """The model could not be loaded; the child ends."""

    message: str


class Said(_Frame, frozen=True):
    """More of an answer, or of the thoughts before it."""

    call: int
    text: str
    thought: str = ""


class Called(_Frame, frozen=True):
    """More of a tool call; ``name`` comes with its first fragment only."""

    call: int
    name: str | None
    arguments: str = ""


class Cut(_Frame, frozen=True):
    """The answer to ``Split``; ``tokens`` None: it cannot be told on this system."""

    call: int
    tokens: tuple[Token, ...] | None


class Counted(_Frame, frozen=True):
    """The answer to ``Count``; ``tokens`` None: they cannot be counted on this system."""

    call: int
    tokens: int | None


class Done(_Frame, frozen=True):
    call: int
    reason: Literal["stop", "length", "tool_calls"]
    usage: Usage


class Failed(_Frame, frozen=True):
    """A call failed; the child goes on. ``used`` and ``limit`` are in tokens."""

    call: int
    kind: Literal["context", "image", "invalid", "model"]
    message: str
    param: str | None = None
    used: int | None = None
    limit: int | None = None


Down: TypeAlias = Ask | Drop | Count | Split
Up: TypeAlias = Ready | Broken | Said | Called | Counted | Cut | Done | Failed

_encoder = msgspec.msgpack.Encoder()
_down = msgspec.msgpack.Decoder(Down)
_up = msgspec.msgpack.Decoder(Up)


def encode_frame(frame: Down | Up) -> bytes:
    """The bytes of one frame, length included."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(_LENGTH, "little") + body


def decode_down(body: bytes) -> Down:
    """A frame's content as the child reads it."""
    frame: Down = _down.decode(body)
    return frame


def decode_up(body: bytes) -> Up:
    """A frame's content as the parent reads it."""
    frame: Up = _up.decode(body)
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
