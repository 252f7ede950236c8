"""Reasoning sidecar: what only some models are sent, inside a rendered messages array. Pure.

What a model thought is no message, but some models want it back, encrypted or under a field of
their own (``core.provider_fields``); and some want to be told again what a message of theirs was
to its turn. Items of an upstream's own tools are for upstreams of its kind. All this lies in the
message that it led to, or that it is about, or behind which it stands, or in a call, under
private keys, between two raw newlines:

    {"role":"assistant","content":"Hi."
    ,"antiphon_reasoning":[{"encrypted_content":"gAAA","origin":"x.ai/g"}],"antiphon_phase":"…"
    }

An encoder of compact JSON writes no newline of its own: in a string it is an escape. So
whether there is anything carried, and where, is told by looking for one byte, and nobody's
words can be taken for it. In the same way a raw tab marks messages that not every upstream takes
as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from antiphon.core.items import Phase, ReasoningText, SummaryText

#: Stands in a message whose parts not every upstream takes: pictures of tools, original details.
UNCOMMON_MARK = b"\t"

REASONING_KEY = "antiphon_reasoning"
PHASE_KEY = "antiphon_phase"
FIELDS_KEY = "antiphon_fields"
ITEMS_KEY = "antiphon_items"
NATIVE_KEY = "antiphon_native"

_BEGIN = b'\n,"antiphon_'
_END = b"\n}"

_encode = msgspec.json.Encoder().encode


class ReasoningSidecar(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reasoning item, or a foreign one: that is ``item``, the item's own JSON.

    ``content`` is what was thought, where that goes back and not ``encrypted_content``. ``target``
    is what of its message it led to: 0 the content, 1 the first call, 2 the second. ``origin`` is
    the model that made it, None: nobody knows.
    """

    encrypted_content: str = ""
    origin: str | None = None
    summary: tuple[SummaryText, ...] = ()
    target: int = 0
    item: dict[str, Any] | None = None
    content: tuple[ReasoningText, ...] = ()


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


def attach_fields(owner: bytes, fields_by_origin: Mapping[str | None, Mapping[str, Any]]) -> bytes:
    """A message or a call, as compact JSON of an object, with the fields that are its models'."""
    for origin, fields in fields_by_origin.items():
        load = {"origin": origin, "fields": fields}
        owner = b"".join((owner[:-1], b'\n,"%b":' % FIELDS_KEY.encode(), _encode(load), _END))
    return owner


def attach_items(message: bytes, items: Sequence[Mapping[str, Any]]) -> bytes:
    """A message, as compact JSON of an object, with the foreign items that stand behind it."""
    if not items:
        return message
    return b"".join((message[:-1], b'\n,"%b":' % ITEMS_KEY.encode(), _encode(items), _END))


def attach_native_item(owner: bytes, item: Mapping[str, Any]) -> bytes:
    """A call or an output, as compact JSON of an object, and the foreign item that it is a view of.

    Upstreams of that item's kind are sent the item in its place; an empty one: nothing.
    """
    return b"".join((owner[:-1], b'\n,"%b":' % NATIVE_KEY.encode(), _encode(item), _END))


def insert_fields(messages: bytes, origin: str) -> bytes:
    """Messages, as JSON, with the fields that came from the model ``origin``, or from a client.

    All else that they carry is left out.
    """
    prefixes = [_fields_prefix(one) for one in (origin, None)]

    def inserted(load: bytes) -> bytes:
        for prefix in prefixes:
            if load.startswith(prefix):
                # The braces of the fields, and of what they are in.
                return b"," + load[len(prefix) + 1 : -2]
        return b""

    return _replace_sidecars(messages, inserted)


def _fields_prefix(origin: str | None) -> bytes:
    return b',"%b":{"origin":%b,"fields":' % (FIELDS_KEY.encode(), _encode(origin))


def _replace_sidecars(messages: bytes, replace: Callable[[bytes], bytes]) -> bytes:
    first = messages.find(b"\n")
    if first < 0 or not messages.startswith(_BEGIN, first):
        return messages
    pieces = messages.split(b"\n")
    pieces[1::2] = map(replace, pieces[1::2])
    return b"".join(pieces)


def strip_sidecars(messages: bytes) -> bytes:
    """Messages, as JSON, without what they carry."""
    return _replace_sidecars(messages, lambda _: b"")
