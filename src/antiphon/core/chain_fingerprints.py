"""Chain fingerprints: hashes by which a history that a client sends again is recognized. Pure.

Clients of chat completions send all messages with each request. The fingerprint of a history is
a hash over its messages, each hashed with the fingerprint of those before it, so that all
beginnings of a history have theirs by one pass. A stored turn is found by the fingerprint of
what had been said when it ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from antiphon.core.items import (
    FunctionCall,
    Item,
    Message,
    Reasoning,
    Refusal,
    encode_item,
    text_of,
)

#: Bytes of a fingerprint.
_SIZE = 16


class ChainFingerprint(msgspec.Struct, frozen=True):
    """The fingerprint of a chain up to a turn, and the epoch of its family when it was read."""

    digest: bytes
    epoch: int = 0


class HistoryFingerprint(msgspec.Struct, frozen=True):
    """The fingerprint of a history, and those of its beginnings that end with an answer.

    ``answers`` has how many items come before and in the answer, and the fingerprint; the
    longest beginning first.
    """

    digest: bytes
    answers: tuple[tuple[int, bytes], ...]


def fingerprint_history(tenant: str, items: Sequence[Item]) -> HistoryFingerprint:
    """The fingerprints of a tenant's history."""
    digest = _hash(b"", tenant.encode())
    answers: list[tuple[int, bytes]] = []
    count = 0
    for message in group_messages(items):
        count += len(message)
        if is_assistant_item(message[0]):
            digest = extend_fingerprint(digest, message)
            answers.append((count, digest))
        else:
            digest = _hash(digest, encode_item(message[0]))
    return HistoryFingerprint(digest, tuple(reversed(answers)))


def extend_fingerprint(digest: bytes, answer: Iterable[Item]) -> bytes:
    """The fingerprint of a history and its answer, as clients send that back.

    Reasoning does not count, nor white space around the words, which clients remove, nor that
    in the arguments of calls, which some write anew.
    """
    text, refusal, name = "", "", None
    calls: list[Any] = []
    for item in answer:
        match item:
            case Message(content=content):
                text += text_of(content)
                name = item.name
                if not isinstance(content, str):
                    refusal += "".join(one.refusal for one in content if isinstance(one, Refusal))
            case FunctionCall():
                calls.append((item.call_id, item.name, _canonical_json(item.arguments)))
    return _hash(digest, msgspec.json.encode((text.strip(), refusal.strip(), name, calls)))


def group_messages(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Items by the messages of chat completions, where an assistant's calls follow its words."""
    group: list[Item] = []
    for item in items:
        begins = isinstance(item, Message | Reasoning) and any(
            isinstance(one, Message | FunctionCall) for one in group
        )
        if group and (begins or not is_assistant_item(item)):
            yield group
            group = []
        group.append(item)
        if not is_assistant_item(item):
            yield group
            group = []
    if group:
        yield group


def is_assistant_item(item: Item) -> bool:
    """Whether a model has made it."""
    if isinstance(item, Message):
        return item.role == "assistant"
    return isinstance(item, FunctionCall | Reasoning)


def _canonical_json(text: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


def _hash(before: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(before + data, digest_size=_SIZE).digest()
