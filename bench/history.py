"""The texts of the benchmark, and the proof that a model was shown all of them.

The fake upstream begins each answer with ``history=COUNT:DIGEST`` over the messages
it was given. Whoever knows what was said can tell from that alone whether the
history arrived whole, in order and unchanged.
"""

from __future__ import annotations

import hashlib

MARK = b"history="
#: UTF-8 lengths of a user's message and of a reply that is not streamed.
USER_BYTES = 200
REPLY_BYTES = 300
# What JSON has to escape or must not mangle, so that an exact history means something.
_AWKWARD = ' "\\" \n\té ☃ 😀 </s> '
_FILLER = "and so they talked on until the evening, about nothing in particular, "


def _pad(text: str, size: int) -> str:
    missing = size - len(text.encode())
    return text + (_FILLER * (missing // len(_FILLER) + 1))[: max(0, missing)]


_REPLY_TAIL = _pad(" - " + _AWKWARD, REPLY_BYTES - 32)


class History:
    """The running digest of a messages array."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        self._count = 0

    def add(self, role: str, text: str) -> None:
        self._hash.update(f"{role}\x1f{text}\x1e".encode())
        self._count += 1

    def proof(self) -> str:
        return f"history={self._count}:{self._hash.hexdigest()}"


def user_text(conversation: int, turn: int) -> str:
    """What is said in one turn: ``USER_BYTES`` long, never twice the same."""
    return _pad(f"conversation {conversation}, turn {turn}:{_AWKWARD}", USER_BYTES)


def reply_text(proof: str) -> str:
    """The fake's whole answer, about ``REPLY_BYTES`` long."""
    return proof + _REPLY_TAIL


def token(index: int) -> str:
    """The text of one streamed chunk; the proof stands in place of the first."""
    return f" w{index:04d}"


def streamed_text(proof: str, chunks: int) -> str:
    """What the chunks of a stream add up to."""
    return proof + "".join(token(index) for index in range(1, chunks))
