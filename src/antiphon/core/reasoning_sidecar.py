"""Reasoning sidecar: encrypted reasoning and phases inside a rendered messages array. Pure.

What a model thought is no message, but some models want it back, encrypted; and some want to
be told again what a message of theirs was to its turn. It lies in the assistant's message that
it led to, or that it is about, under private keys, between two raw newlines:

    {"role":"assistant","content":"Hi."
    ,"antiphon_reasoning":[{"encrypted_content":"gAAA","origin":"x.ai/g"}],"antiphon_phase":"…"
    }

An encoder of compact JSON writes no newline of its own: in a string it is an escape. So
whether there is anything carried, and where, is told by looking for one byte, and nobody's
words can be taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from antiphon.core.items import Phase, SummaryText

REASONING_KEY = "antiphon_reasoning"
PHASE_KEY = "antiphon_phase"

_BEGIN = b'\n,"antiphon_'
_END = b"\n}"

_encode = msgspec.json.Encoder().encode


class ReasoningSidecar(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reasoning item.

    ``target`` is what of its message it led to: 0 the content, 1 the first call, 2 the
    second. ``origin`` is the model that made it, None: nobody knows.
    """

    encrypted_content: str
    origin: str | None = None
    summary: tuple[SummaryText, ...] = ()
    target: int = 0


def attach_sidecars(
    message: bytes, sidecars: Sequence[ReasoningSidecar], phase: Phase | None = None
) -> bytes:
    """A message, as compact JSON of an object with some keys, and what it carries."""
    if not sidecars and phase is None:
        return message
    load: dict[str, Any] = {REASONING_KEY: sidecars} if sidecars else {}
    if phase is not None:
        load[PHASE_KEY] = phase
    return b"".join((message[:-1], b"\n,", _encode(load)[1:-1], _END))


def strip_sidecars(messages: bytes) -> bytes:
    """Messages, as JSON, without what they carry."""
    first = messages.find(b"\n")
    if first < 0 or not messages.startswith(_BEGIN, first):
        return messages
    return b"".join(messages.split(b"\n")[::2])
